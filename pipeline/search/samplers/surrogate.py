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
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize
from scipy.special import expit

from phonefit.pipeline.search.samplers.axes import Axis, Floats

Indices = NDArray[np.intp]

# Behind the lengths, one an axis: interaction r, smoothness w, amplitudes a and b, length of Gauss to that of Matern,
# noise. Mean and standard deviation of a normal prior, for the logarithm, or the logit of r and w.
_LENGTH = (-0.5, 1.0)
_OTHERS = ((0.0, 1.5), (2.0, 1.5), (0.3, 1.0), (-2.0, 1.5), (0.7, 0.7), (-6.0, 2.0))
_BOUNDS = ((-5.0, 4.0), (-4.0, 6.0), (-6.0, 4.0), (-8.0, 4.0), (-1.0, 3.0), (-12.0, 0.0))
_LENGTH_BOUNDS = (-3.0, 3.0)
_INTERACTION, _SMOOTHNESS, _PRODUCT, _GAUSS, _RATIO, _NOISE = range(6)
_JITTER = 1e-6
_UNUSABLE = 1e10
_ROOT5 = 5**0.5
_STEPS_OF_CHAIN = 6
_BLOCK = 256
_SMALLEST_ANGLE = 1e-6


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
class _Pairs:
    """Pairs of observations, the lower triangle of their matrix: few distances are distinct on a grid.

    Attributes:
        cells: where each pair is in the flattened matrix.
        times: how often it is in the whole matrix: 1 on the diagonal, else 2.
        gaps: for each axis the distinct distances.
        places: for each axis which of them each pair has.
    """

    kinds: tuple[AxisKind, ...]
    count: int
    cells: Indices
    times: Floats
    gaps: tuple[Floats, ...]
    places: tuple[Indices, ...]

    @classmethod
    def of(cls, points: Floats, kinds: tuple[AxisKind, ...]) -> "_Pairs":
        rows, columns = np.tril_indices(len(points))
        gaps: list[Floats] = []
        places: list[Indices] = []
        for column, kind in zip(points.T, kinds, strict=True):
            levels, inverse = np.unique(column, return_inverse=True)
            if len(levels) ** 2 > len(rows):  # a continuous axis: hardly two distances are alike
                gaps.append(_gaps(column[rows], column[columns], kind))
                places.append(np.arange(len(rows)))
                continue
            between = _gaps(levels[:, None], levels[None], kind).round(12)
            distinct, place = np.unique(between, return_inverse=True)
            gaps.append(distinct)
            places.append(place.reshape(between.shape)[inverse[rows], inverse[columns]])
        cells, times = rows * len(points) + columns, np.where(rows == columns, 1.0, 2.0)
        return cls(kinds, len(points), cells, times, tuple(gaps), tuple(places))

    def matrix(self, values: Floats) -> Floats:
        """Values of the pairs as a matrix; above the diagonal it is 0."""
        square = np.zeros(self.count**2)
        square[self.cells] = values
        return square.reshape(self.count, self.count)

    def summed(self, axis: int, values: Floats) -> Floats:
        """Values of the pairs, added up by their distance along an axis."""
        return np.bincount(self.places[axis], values, len(self.gaps[axis])).astype(np.float64)


def fit(points: Floats, values: Floats, kinds: tuple[AxisKind, ...], starts: Sequence[Floats], steps: int) -> Floats:
    """The most probable parameters of the kernel (MAP) that L-BFGS reaches from any of the starts.

    Args:
        points: float64 [n, axes].
        values: standardised, float64 [n].
        steps: of L-BFGS, from each start.
    """
    pairs = _Pairs.of(points, kinds)
    bounds = [*[_LENGTH_BOUNDS] * len(kinds), *_BOUNDS]
    found = [
        minimize(
            _negative_log_posterior,
            start,
            args=(pairs, values),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "maxfun": 2 * steps},
        )
        for start in starts
    ]
    best: Floats = min(found, key=lambda result: float(result.fun)).x
    return best


def _negative_log_posterior(theta: Floats, pairs: _Pairs, values: Floats) -> tuple[float, Floats]:
    axes = len(pairs.kinds)
    interaction, smoothness, product_scale, gauss_scale, ratio, noise = _natural(theta[axes:])
    similar, slopes, unlike, squares, factors = [], [], [], [], []
    product, exponent = np.full(len(pairs.cells), product_scale), np.zeros(len(pairs.cells))
    for axis, kind in enumerate(pairs.kinds):
        gaps, length = pairs.gaps[axis], np.exp(theta[axis])
        table, slope = _correlation(gaps, length, kind)
        weight = smoothness if _has_delta(kind) else 1.0
        unlike.append(table - (gaps == 0) if _has_delta(kind) else np.zeros_like(gaps))
        slopes.append(weight * slope)
        similar.append(table - (1 - weight) * unlike[-1])
        squares.append((gaps / (ratio * length)) ** 2)
        factors.append((1 - interaction + interaction * similar[-1])[pairs.places[axis]])
        product *= factors[-1]
        exponent += squares[-1][pairs.places[axis]]
    gauss = gauss_scale * np.exp(-0.5 * exponent)
    kernel = pairs.matrix(product + gauss)
    kernel[np.diag_indices(pairs.count)] += noise
    try:
        lower = cholesky(kernel, lower=True, check_finite=False)
    except LinAlgError:
        return _UNUSABLE, np.zeros_like(theta)
    inverse, _ = dpotri(lower, lower=1)
    weights = cho_solve((lower, True), values, check_finite=False)
    half = 0.5 * pairs.times * (inverse - np.outer(weights, weights)).ravel()[pairs.cells]
    of_product, of_gauss = half * product, half * gauss
    gradient = np.empty_like(theta)
    by_interaction, by_smoothness = 0.0, 0.0
    for axis in range(axes):
        share = pairs.summed(axis, of_product / factors[axis])
        gradient[axis] = interaction * share @ slopes[axis] + pairs.summed(axis, of_gauss) @ squares[axis]
        by_interaction += float(share @ (similar[axis] - 1))
        by_smoothness += interaction * float(share @ unlike[axis])
    others = gradient[axes:]
    others[_INTERACTION] = by_interaction * interaction * (1 - interaction)
    others[_SMOOTHNESS] = by_smoothness * smoothness * (1 - smoothness)
    others[_PRODUCT] = of_product.sum()
    others[_GAUSS] = of_gauss.sum()
    others[_RATIO] = of_gauss @ exponent
    others[_NOISE] = 0.5 * (np.trace(inverse) - weights @ weights) * (noise - _JITTER)
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
            gaps, length = _gaps(levels[:, None], self.points[None, :, axis], kind), np.exp(self.theta[axis])
            product.append(1 - interaction + interaction * _similarity(gaps, length, smoothness, kind))
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
        means, variances = np.empty(len(indices)), np.empty(len(indices))
        for start in range(0, len(indices), _BLOCK):  # so many at once stay in the processor's cache
            block = slice(start, start + _BLOCK)
            means[block], variances[block] = self._predict(indices[block])
        return means, variances

    def _predict(self, indices: Indices) -> tuple[Floats, Floats]:
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
    lower, weights = _solved(_Pairs.of(points, kinds), values, theta)
    return Surrogate(theta, points, kinds, lower, weights)


def draws(
    points: Floats,
    values: Floats,
    kinds: tuple[AxisKind, ...],
    theta: Floats,
    count: int,
    random: np.random.Generator,
) -> list[Floats]:
    """Parameters of the kernel from their posterior, by elliptical slice sampling (Murray et al., AISTATS 2010).

    Args:
        theta: where the chain starts: the most probable parameters.
        count: number of draws; each is a few steps of the chain after the one before.
    """
    pairs = _Pairs.of(points, kinds)
    means, deviations = _prior(len(kinds))
    low, high = np.array([*[_LENGTH_BOUNDS] * len(kinds), *_BOUNDS]).T

    def log_likelihood(theta: Floats) -> float:
        if (theta < low).any() or (theta > high).any():
            return -np.inf
        try:
            lower, weights = _solved(pairs, values, theta)
        except LinAlgError:
            return -np.inf
        return float(-0.5 * values @ weights - np.log(np.diag(lower)).sum())

    found, height = [], log_likelihood(theta)
    for step in range(1, count * _STEPS_OF_CHAIN + 1):
        direction = deviations * random.normal(size=len(theta))
        mark = height + np.log(random.random())
        angle = random.uniform(0, 2 * np.pi)
        left, right = angle - 2 * np.pi, angle
        while right - left > _SMALLEST_ANGLE:
            moved = means + (theta - means) * np.cos(angle) + direction * np.sin(angle)
            reached = log_likelihood(moved)
            if reached > mark:
                theta, height = moved, reached
                break
            left, right = (angle, right) if angle < 0 else (left, angle)
            angle = random.uniform(left, right)
        if step % _STEPS_OF_CHAIN == 0:
            found.append(theta)
    return found


def _solved(pairs: _Pairs, values: Floats, theta: Floats) -> tuple[Floats, Floats]:
    """The Cholesky factor of the kernel's matrix, and that matrix' inverse times the values."""
    axes = len(pairs.kinds)
    interaction, smoothness, product_scale, gauss_scale, ratio, noise = _natural(theta[axes:])
    product, exponent = np.full(len(pairs.cells), product_scale), np.zeros(len(pairs.cells))
    for axis, kind in enumerate(pairs.kinds):
        gaps, length = pairs.gaps[axis], np.exp(theta[axis])
        product *= (1 - interaction + interaction * _similarity(gaps, length, smoothness, kind))[pairs.places[axis]]
        exponent += ((gaps / (ratio * length)) ** 2)[pairs.places[axis]]
    kernel = pairs.matrix(product + gauss_scale * np.exp(-0.5 * exponent))
    kernel[np.diag_indices(pairs.count)] += noise
    lower = cholesky(kernel, lower=True, check_finite=False)
    return lower, cho_solve((lower, True), values, check_finite=False)


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
    gaps: Floats = np.abs(levels - others)
    return (gaps > 0).astype(np.float64) if kind.nominal else gaps


def _similarity(gaps: Floats, length: float, smoothness: float, kind: AxisKind) -> Floats:
    """The correlation along one axis, and where levels may have no order its mixture with that of unordered ones."""
    table, _ = _correlation(gaps, length, kind)
    return smoothness * table + (1 - smoothness) * (gaps == 0) if _has_delta(kind) else table


def _correlation(gaps: Floats, length: float, kind: AxisKind) -> tuple[Floats, Floats]:
    """Matern 5/2, or exp(-1 / length) between unlike categories; and its slope by the logarithm of the length."""
    if kind.nominal:
        table = np.exp(-gaps / length)
        return table, table * gaps / length
    scaled = _ROOT5 * gaps / length
    decay = np.exp(-scaled)
    return (1 + scaled + scaled**2 / 3) * decay, scaled**2 / 3 * (1 + scaled) * decay
