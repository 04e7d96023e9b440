"""Intervals of metrics by the bootstrap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 400


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float], count: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of 95 % (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Seeded.

    Args:
        statistic: the metric of these rows, int64 [count], drawn with replacement.
        count: number of pictures.
        resamples: fewer are coarser, where the metric takes long.
    """
    random = np.random.default_rng(0)
    values = [statistic(random.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
