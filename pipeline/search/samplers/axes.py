"""Parameters of a study as axes of a tensor: coordinates in the unit interval, or numbers of unordered categories."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Floats = NDArray[np.float64]
Value = str | int | float | bool | None

LARGEST_EXACT = 64
"""Numeric axes of up to so many values are a grid of exactly these; the others are continuous."""


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        nominal: categories without an order: coordinates are their numbers 0, 1, …
        levels: the coordinates that exist, ascending: float64 [n]; None where the axis is continuous.
        values: what the levels stand for, in the same order; empty where the axis is continuous.
    """

    name: str
    distribution: BaseDistribution
    nominal: bool
    levels: Floats | None
    values: tuple[Value, ...] = ()

    def encode(self, value: Value) -> float:
        """The coordinate of a value.

        Raises:
            ValueError: it is no value of this axis.
        """
        if self.levels is not None:
            return float(self.levels[self.values.index(value)])
        assert isinstance(value, int | float)
        low, high, scale = _numeric_range(self.distribution)
        return (scale(value) - scale(low)) / (scale(high) - scale(low))

    def decode(self, coordinate: float) -> Value:
        """The value at, or nearest to, a coordinate."""
        if self.levels is not None:
            return self.values[int(np.abs(self.levels - coordinate).argmin())]
        low, high, scale = _numeric_range(self.distribution)
        position = scale(low) + coordinate * (scale(high) - scale(low))
        value = math.exp(position) if scale is math.log else position
        value = min(max(value, low), high)
        step = getattr(self.distribution, "step", None)
        if step:
            value = min(low + round((value - low) / step) * step, high)
        return round(value) if isinstance(self.distribution, IntDistribution) else float(value)

    def at_share(self, share: float) -> float:
        """The coordinate that a share 0..1 of the axis ends at; levels have equal shares."""
        if self.levels is None:
            return share
        return float(self.levels[min(int(share * len(self.levels)), len(self.levels) - 1)])


def axes_of(space: Mapping[str, BaseDistribution]) -> tuple[Axis, ...]:
    """One axis for each parameter. Categories that are numbers in ascending or descending order have that order.

    Raises:
        ValueError: a distribution that is none of Optuna's three.
    """
    return tuple(_axis(name, distribution) for name, distribution in sorted(space.items()))


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        choices = tuple(distribution.choices)
        nominal = not _ordered(choices)
        levels = np.arange(len(choices)) if nominal else np.arange(len(choices)) / max(1, len(choices) - 1)
        return Axis(name, distribution, nominal, levels.astype(np.float64), choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise ValueError(f"{name}: {type(distribution).__name__} is no distribution that this sampler knows")
    low, high, scale = _numeric_range(distribution)
    step = distribution.step
    count = math.floor((high - low) / step + 1e-9) + 1 if step else None
    if high == low:
        count = 1
    if count is None or count > LARGEST_EXACT:
        return Axis(name, distribution, False, None)
    whole = isinstance(distribution, IntDistribution)
    values = [round(low + place * (step or 0)) if whole else low + place * (step or 0) for place in range(count)]
    width = scale(values[-1]) - scale(low)
    coordinates = [(scale(value) - scale(low)) / width if width else 0.0 for value in values]
    return Axis(name, distribution, False, np.array(coordinates), tuple(values))


def _ordered(choices: Sequence[Value]) -> bool:
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    return len(numbers) == len(choices) > 2 and numbers in (sorted(numbers), sorted(numbers, reverse=True))


def _numeric_range(distribution: BaseDistribution) -> tuple[float, float, Callable[[float], float]]:
    """Ends, and the scale on which the axis is even."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low, distribution.high, math.log if distribution.log else float


def random_points(axes: Sequence[Axis], count: int, random: np.random.Generator) -> Floats:
    """Uniform coordinates: float64 [count, axes]."""
    columns = [random.random(count) if axis.levels is None else random.choice(axis.levels, count) for axis in axes]
    return np.column_stack(columns)


def distances(axes: Sequence[Axis], points: Floats, others: Floats) -> Floats:
    """Sum over the axes of |difference|, where unlike categories are 1 apart: float64 [points, others]."""
    total = np.zeros((len(points), len(others)))
    for place, axis in enumerate(axes):
        gaps = np.abs(points[:, place, None] - others[None, :, place])
        total += gaps > 0 if axis.nominal else gaps
    return total


def grid_around(
    axes: Sequence[Axis], incumbents: Floats, coarse: int, random: np.random.Generator
) -> tuple[Floats, ...]:
    """The coordinates that one suggestion looks at, for each axis: all levels, or dithered ones and fine ones.

    Args:
        incumbents: the best points: float64 [n, axes]. Continuous axes get finer and finer levels around them.
        coarse: number of dithered levels over a continuous axis.
    """
    columns = []
    for place, axis in enumerate(axes):
        if axis.levels is not None:
            columns.append(axis.levels)
            continue
        spread = (np.arange(coarse) + random.random(coarse)) / coarse
        steps = np.array([0.0, *(sign * 4.0**-power for power in range(2, 6) for sign in (-1, 1))])
        near = (incumbents[:, place, None] + steps * random.uniform(0.5, 1.0)).ravel()
        columns.append(np.unique(np.clip(np.concatenate([spread, near, incumbents[:, place]]), 0, 1)))
    return tuple(columns)
