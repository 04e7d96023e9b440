"""Grid search in a random order: all values of finite axes, and a few levels of ranges, refined when all are tried."""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from phonefit.pipeline.search.samplers.axes import Axis, Value, axes_of
from phonefit.pipeline.search.samplers.base import WholeSpaceSampler
from phonefit.pipeline.search.space import Space, distributions

_FIRST_INTERVALS = 4
_REFINEMENTS = 6
_DRAWS = 50
_LARGEST_LISTED = 200_000


def make(seed: int, space: Space) -> BaseSampler:
    """A LazyGridSampler over the whole space of a recipe."""
    return LazyGridSampler(seed, distributions(space))


class LazyGridSampler(WholeSpaceSampler):
    """A random point of the grid that no trial of the study has.

    Ranges with more than 64 values have 5 levels, both ends among them; when the whole grid has been tried, 9, then 17,
    and so on: each grid contains the one before. Optuna's own GridSampler holds the whole product in memory and ends
    when it has been tried.

    Args:
        seed: the same seed and the same trials give the same point.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One point of the grid."""
        axes = axes_of(search_space)
        random = np.random.default_rng([self._seed, trial.number])
        tried = {
            _key(other.params[axis.name] for axis in axes)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and all(axis.name in other.params for axis in axes)
        }
        point: tuple[Value, ...] = ()
        for refinement in range(_REFINEMENTS):
            levels = [levels_of(axis, _FIRST_INTERVALS * 2**refinement) for axis in axes]
            found = _untried(levels, tried, random)
            if found is not None:
                point = found
                break
        else:  # every level of every refinement: any point is as good
            point = tuple(_pick(values, random) for values in levels)
        return {axis.name: value for axis, value in zip(axes, point, strict=True)}


def levels_of(axis: Axis, intervals: int) -> tuple[Value, ...]:
    """Values of an axis on the grid: all of a finite one, `intervals` + 1 of a range."""
    if axis.levels is not None:
        return axis.values
    return tuple(dict.fromkeys(axis.decode(place / intervals) for place in range(intervals + 1)))


def _untried(levels: list[tuple[Value, ...]], tried: set[str], random: np.random.Generator) -> tuple[Value, ...] | None:
    for _ in range(_DRAWS):
        point = tuple(_pick(values, random) for values in levels)
        if _key(point) not in tried:
            return point
    count = int(np.prod([float(len(values)) for values in levels]))
    if count > _LARGEST_LISTED:  # so many draws that all were taken cannot happen on a grid that is nearly empty
        return None
    sizes = [len(values) for values in levels]
    for number in random.permutation(count):
        places = np.unravel_index(number, sizes)
        point = tuple(values[place] for values, place in zip(levels, places, strict=True))
        if _key(point) not in tried:
            return point
    return None


def _pick(values: tuple[Value, ...], random: np.random.Generator) -> Value:
    return values[int(random.integers(len(values)))]


def _key(values: Any) -> str:
    return repr([f"{value:.12g}" if isinstance(value, float) else value for value in values])
