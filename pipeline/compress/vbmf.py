"""The rank of a noisy matrix by empirical variational Bayes: how many singular values are more than noise.

Nakajima, Sugiyama, Babacan, Tomioka 2013, "Global Analytic Solution of Fully-observed Variational Bayesian Matrix
Factorization", JMLR 14: theorem 2 (threshold and estimator), theorem 4 and corollary 1 (the noise and its bounds).
"""

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def vbmf_rank(singular_values: Values, shape: tuple[int, int]) -> int:
    """Number of components that empirical variational Bayes keeps, with the noise estimated from the matrix itself.

    Args:
        singular_values: all min(shape) singular values of the matrix, in any order.
        shape: rows and columns of the matrix.

    Raises:
        ValueError: not as many values as the matrix has.
    """
    rows, columns = min(shape), max(shape)
    if len(singular_values) != rows:
        raise ValueError(f"a matrix of {shape} has {rows} singular values, got {len(singular_values)}")
    squared = np.sort(np.asarray(singular_values, dtype=np.float64))[::-1] ** 2
    if squared[0] == 0:
        return 0
    ratio = rows / columns
    least = _threshold(ratio)
    noise = _noise(squared, columns, ratio, least)
    return int((squared > columns * noise * least).sum())


def _threshold(ratio: float) -> float:
    """Smallest squared singular value over (columns x noise variance) that is kept."""
    from scipy.optimize import brentq

    def slope(value: float) -> float:
        return math.log1p(value) / value - 0.5

    # slope falls from 0.5 to -0.5 and crosses 0 at 2.5129, so the sum has its one zero between ratio x that and that
    zero = float(brentq(lambda tau: slope(tau) + slope(tau / ratio), 2.5 * ratio, 2.6))
    return (1 + zero) * (1 + ratio / zero)


def _noise(squared: Values, columns: int, ratio: float, least: float) -> float:
    """Variance of the noise that minimises the free energy."""
    from scipy.optimize import minimize_scalar

    rows = len(squared)
    most = min(math.ceil(rows / (1 + ratio)) - 1, rows - 1)  # signals beyond it cannot be told from noise
    upper = float(squared.sum() / (rows * columns))
    lower = max(float(squared[most] / (columns * least)), float(squared[most:].mean() / columns))
    if lower >= upper or lower <= upper * 1e-12:  # exactly low rank, or nothing to choose from
        return max(lower, upper * 1e-12)

    def free_energy(log_noise: float) -> float:
        scaled = squared / (columns * math.exp(log_noise))
        scaled = np.maximum(scaled, np.finfo(np.float64).tiny)
        kept = scaled[scaled > least]
        distance = kept - (1 + ratio)
        tau = 0.5 * (distance + np.sqrt(np.maximum(distance**2 - 4 * ratio, 0)))
        gain = np.log1p(tau) + ratio * np.log1p(tau / ratio) - tau
        return float((scaled - np.log(scaled)).sum() + gain.sum())

    found = minimize_scalar(free_energy, bounds=(math.log(lower), math.log(upper)), method="bounded")
    return math.exp(found.x)
