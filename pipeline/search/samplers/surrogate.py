"""A Gaussian process whose kernel is a sum of two products over the axes, so that its mean is an exact tensor train.

    k(x, x') = a * prod_i [1 - r + r * (w * Matern52_i + (1 - w) * delta_i)]  +  b * prod_i Gauss_i

On a grid each observation adds one rank-1 term for each product: with N observations the mean is a tensor train (in
fact a sum of separable terms) of rank 2N, and is evaluated by looking up one number an axis. The first product holds
all orders of interaction, weaker the higher (r < 1), and levels that have no smooth order (delta). The second is smooth
in all directions at once, for valleys that no axis follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from phonefit.pipeline.search.samplers.axes import Axis, Floats

Indices = NDArray[np.intp]

# Behind the lengths, one an axis: interaction r, smoothness w, amplitudes a and b, length of Gauss to that of Matern,
# noise. Mean and standard deviation of a normal prior, for the logarithm, or the logit of r and w.
_LENGTH = (-0.5, 1.0)
_OTHERS = ((0.0, 1.5), (0.7, 1.5), (0.3, 1.0), (-4.0, 1.5), (0.7, 0.7), (-6.0, 2.0))
_BOUNDS = ((-5.0, 4.0), (-4.0, 6.0), (-6.0, 4.0), (-8.0, 4.0), (-1.0, 3.0), (-12.0, 0.0))
_LENGTH_BOUNDS = (-3.0, 3.0)
_INTERACTION, _SMOOTHNESS, _PRODUCT, _GAUSS, _RATIO, _NOISE = range(6)
_JITTER = 1e-6
_UNUSABLE = 1e10
_ROOT5 = 5**0.5


@dataclass(frozen=True)
class AxisKind:
    """What the kernel must know of an axis: categories without order; levels that may have none (a finite axis)."""

    nominal: bool
    finite: bool


def kinds_of(axes: Sequence[Axis]) -> tuple[AxisKind, ...]:
    """The kinds of these axes."""
    return tuple(AxisKind(axis.nominal, axis.levels is not None) for axis in axes)


def prior_mean(axes: int) -> Floats:
    """Where fitting starts: float64 [axes + 6]."""
    return np.array([*[_LENGTH[0]] * axes, *(mean for mean, _ in _OTHERS)])


def unordered_start(axes: int) -> Floats:
    """A second start: neighbouring levels tell little about each other."""
    start = prior_mean(axes)
    start[axes + _SMOOTHNESS] = -1.0
    return start


@dataclass(frozen=True)
class _Rows:
    """Observations by axis: distinct coordinates, their distances, and which one each observation has."""

    kinds: tuple[AxisKind, ...]
    gaps: tuple[Floats, ...]
    places: tuple[Indices, ...]

    @classmethod
    def of(cls, points: Floats, kinds: tuple[AxisKind, ...]) -> "_Rows":
        gaps, places = [], []
        for column, kind in zip(points.T, kinds, strict=True):
            levels, inverse = np.unique(column, return_inverse=True)
            gaps.append(_gaps(levels, levels, kind))
            places.append(inverse)
        return cls(kinds, tuple(gaps), tuple(places))

    def expanded(self, axis: int, table: Floats) -> Floats:
        """A table over distinct coordinates as a matrix over observations."""
        return table[self.places[axis]][:, self.places[axis]]


def fit(points: Floats, values: Floats, kinds: tuple[AxisKind, ...], starts: Sequence[Floats], steps: int) -> Floats:
    """The most probable parameters of the kernel (MAP) that L-BFGS reaches from any of the starts.

    Args:
        points: float64 [n, axes].
        values: standardised, float64 [n].
        steps: of L-BFGS, from each start.
    """
    rows = _Rows.of(points, kinds)
    bounds = [*[_LENGTH_BOUNDS] * len(kinds), *_BOUNDS]
    found = [
        minimize(
            _negative_log_posterior,
            start,
            args=(rows, values),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "maxfun": 2 * steps},
        )
        for start in starts
    ]
    best: Floats = min(found, key=lambda result: float(result.fun)).x
    return best


def _negative_log_posterior(theta: Floats, rows: _Rows, values: Floats) -> tuple[float, Floats]:
    axes, count = len(rows.kinds), len(values)
    interaction, smoothness, product_scale, gauss_scale, ratio, noise = _natural(theta[axes:])
    factors, similar, slopes, equal = [], [], [], []
    exponent = np.zeros((count, count))
    squares = []
    for axis, kind in enumerate(rows.kinds):
        length = np.exp(theta[axis])
        table, slope = _correlation(rows.gaps[axis], length, kind)
        same = (rows.gaps[axis] == 0).astype(np.float64)
        mixed = smoothness * table + (1 - smoothness) * same if _has_delta(kind) else table
        equal.append(rows.expanded(axis, table - same) if _has_delta(kind) else None)
        slopes.append(rows.expanded(axis, slope * (smoothness if _has_delta(kind) else 1.0)))
        similar.append(rows.expanded(axis, mixed))
        factors.append(1 - interaction + interaction * similar[-1])
        squares.append(rows.expanded(axis, (rows.gaps[axis] / (ratio * length)) ** 2))
        exponent += squares[-1]
    product = product_scale * np.prod(factors, axis=0)
    gauss = gauss_scale * np.exp(-0.5 * exponent)
    kernel = product + gauss
    kernel[np.diag_indices(count)] += noise
    try:
        lower = cholesky(kernel, lower=True, check_finite=False)
    except LinAlgError:
        return _UNUSABLE, np.zeros_like(theta)
    inverse = cho_solve((lower, True), np.eye(count), check_finite=False)
    weights = inverse @ values
    half = 0.5 * (inverse - np.outer(weights, weights))
    of_product, of_gauss = half * product, half * gauss
    gradient = np.empty_like(theta)
    by_interaction = by_smoothness = 0.0
    for axis in range(axes):
        share = of_product / factors[axis]
        gauss_part = float(np.vdot(of_gauss, squares[axis]))
        gradient[axis] = interaction * np.vdot(share, slopes[axis]) + gauss_part
        by_interaction += float(np.vdot(share, similar[axis]) - share.sum())
        difference = equal[axis]
        if difference is not None:
            by_smoothness += interaction * float(np.vdot(share, difference))
    others = gradient[axes:]
    others[_INTERACTION] = by_interaction * interaction * (1 - interaction)
    others[_SMOOTHNESS] = by_smoothness * smoothness * (1 - smoothness)
    others[_PRODUCT] = of_product.sum()
    others[_GAUSS] = of_gauss.sum()
    others[_RATIO] = np.vdot(of_gauss, exponent)
    others[_NOISE] = np.trace(half) * (noise - _JITTER)
    means, deviations = _prior(axes)
    surprise = (theta - means) / deviations
    objective = 0.5 * values @ weights + np.log(np.diag(lower)).sum() + 0.5 * surprise @ surprise
    return float(objective), gradient + surprise / deviations


@dataclass(frozen=True)
class Surrogate:
    """The process given observations. `kernel parameters` are in `theta`, see `fit`."""

    theta: Floats
    points: Floats
    kinds: tuple[AxisKind, ...]
    lower: Floats
    weights: Floats

    def on_grid(self, grid: Sequence[Floats]) -> "GridSurrogate":
        """The same process, looked up on a grid of coordinates."""
        axes = len(self.kinds)
        interaction, smoothness, product_scale, gauss_scale, ratio, _ = _natural(self.theta[axes:])
        product, gauss = [], []
        for axis, (levels, kind) in enumerate(zip(grid, self.kinds, strict=True)):
            gaps, length = _gaps(levels, self.points[:, axis], kind), np.exp(self.theta[axis])
            table, _ = _correlation(gaps, length, kind)
            mixed = smoothness * table + (1 - smoothness) * (gaps == 0) if _has_delta(kind) else table
            product.append(1 - interaction + interaction * mixed)
            gauss.append(np.exp(-0.5 * (gaps / (ratio * length)) ** 2))
        return GridSurrogate(self, tuple(product), tuple(gauss), float(product_scale), float(gauss_scale))

    def at_points(self, points: Floats) -> tuple[Floats, Floats]:
        """Mean and variance at any points: float64 [n] each."""
        grid = self.on_grid([points[:, axis] for axis in range(points.shape[1])])
        return grid.predict(np.tile(np.arange(len(points))[:, None], points.shape[1]))


@dataclass(frozen=True)
class GridSurrogate:
    """Mean and variance on a grid; `product` and `gauss` hold, for each axis, one row a level."""

    process: Surrogate
    product: tuple[Floats, ...]
    gauss: tuple[Floats, ...]
    product_scale: float
    gauss_scale: float

    def predict(self, indices: Indices) -> tuple[Floats, Floats]:
        """Mean and variance, without noise, at grid points: indices [n, axes] -> float64 [n] each."""
        count = len(self.process.points)
        product = np.full((len(indices), count), self.product_scale)
        gauss = np.full((len(indices), count), self.gauss_scale)
        for axis in range(indices.shape[1]):
            product *= self.product[axis][indices[:, axis]]
            gauss *= self.gauss[axis][indices[:, axis]]
        product += gauss
        solved = solve_triangular(self.process.lower, product.T, lower=True, check_finite=False)
        variance = self.product_scale + self.gauss_scale - np.einsum("ij,ij->j", solved, solved)
        return product @ self.process.weights, np.maximum(variance, 1e-10)


def condition(points: Floats, values: Floats, kinds: tuple[AxisKind, ...], theta: Floats) -> Surrogate:
    """The process given observations: points float64 [n, axes], values float64 [n].

    Raises:
        LinAlgError: the kernel's matrix is singular.
    """
    rows = _Rows.of(points, kinds)
    axes = len(kinds)
    interaction, smoothness, product_scale, gauss_scale, ratio, noise = _natural(theta[axes:])
    product = np.full((len(points), len(points)), product_scale)
    exponent = np.zeros_like(product)
    for axis, kind in enumerate(kinds):
        gaps, length = rows.gaps[axis], np.exp(theta[axis])
        table, _ = _correlation(gaps, length, kind)
        mixed = smoothness * table + (1 - smoothness) * (gaps == 0) if _has_delta(kind) else table
        product *= rows.expanded(axis, 1 - interaction + interaction * mixed)
        exponent += rows.expanded(axis, (gaps / (ratio * length)) ** 2)
    kernel = product + gauss_scale * np.exp(-0.5 * exponent)
    kernel[np.diag_indices(len(points))] += noise
    lower = cholesky(kernel, lower=True, check_finite=False)
    return Surrogate(theta, points, kinds, lower, cho_solve((lower, True), values, check_finite=False))


def _natural(others: Floats) -> tuple[float, float, float, float, float, float]:
    """The parameters that are no lengths, as the kernel takes them."""
    interaction, smoothness = expit(others[:2])
    product, gauss, ratio, noise = np.exp(others[2:])
    return interaction, smoothness, product, gauss, ratio, noise + _JITTER


def _prior(axes: int) -> tuple[Floats, Floats]:
    deviations = np.array([*[_LENGTH[1]] * axes, *(deviation for _, deviation in _OTHERS)])
    return prior_mean(axes), deviations


def _has_delta(kind: AxisKind) -> bool:
    return kind.finite and not kind.nominal


def _gaps(levels: Floats, others: Floats, kind: AxisKind) -> Floats:
    gaps: Floats = np.abs(np.subtract.outer(levels, others))
    return (gaps > 0).astype(np.float64) if kind.nominal else gaps


def _correlation(gaps: Floats, length: float, kind: AxisKind) -> tuple[Floats, Floats]:
    """Matern 5/2, or exp(-1 / length) between unlike categories; and its slope by the logarithm of the length."""
    if kind.nominal:
        table = np.exp(-gaps / length)
        return table, table * gaps / length
    scaled = _ROOT5 * gaps / length
    decay = np.exp(-scaled)
    return (1 + scaled + scaled**2 / 3) * decay, scaled**2 / 3 * (1 + scaled) * decay
