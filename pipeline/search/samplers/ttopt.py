"""TTOpt (Sozykin et al., NeurIPS 2022, arXiv 2205.00293) as its authors published it, one trial at a time.

A reference to compare with: it approximates the objective itself by tensor cross, which pays with many cheap trials.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from phonefit.pipeline.search.samplers.axes import Axis, axes_of
from phonefit.pipeline.search.samplers.base import WholeSpaceSampler
from phonefit.pipeline.search.samplers.grid import levels_of
from phonefit.pipeline.search.space import Space, distributions

INTERVALS = 15
"""Levels of a range, less one."""
RANK = 1
"""With ranks above 1 a first sweep alone takes axes * levels * rank^2 trials."""
_SEED = "ttopt:seed"
_ROUNDS = 10_000_000

Point = tuple[int, ...]


def make(seed: int, space: Space) -> BaseSampler:
    """A TTOptSampler over the whole space of a recipe."""
    return TTOptSampler(seed, distributions(space))


class TTOptSampler(WholeSpaceSampler):
    """Hands out, in order, the points that TTOpt asks for. One objective only; constraints are ignored.

    The package computes in batches and keeps its state inside. So it is run anew for each trial over the values that
    the study holds, which is exact and cheap, until it asks for a point without one. Failed trials count as the worst.

    Args:
        seed: of the first trial decides; it is kept in the study.
    """

    def __init__(self, seed: int, search_space: Mapping[str, BaseDistribution], rank: int = RANK) -> None:
        super().__init__(seed, search_space)
        self._rank = rank

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point that TTOpt asks for; a random one when it asks for no new ones."""
        axes = axes_of(search_space)
        levels = [levels_of(axis, INTERVALS) for axis in axes]
        known = _known(study, trial, axes, levels)
        point = next_point([len(values) for values in levels], known, self._rank, self._first_seed(study, trial))
        return {axis.name: values[place] for axis, values, place in zip(axes, levels, point, strict=True)}

    def _first_seed(self, study: Study, trial: FrozenTrial) -> int:
        for earlier in study.get_trials(deepcopy=False):
            if _SEED in earlier.system_attrs:
                return int(earlier.system_attrs[_SEED])
        study._storage.set_trial_system_attr(trial._trial_id, _SEED, self._seed)
        return self._seed


class _Asked(Exception):
    """Ends a run of TTOpt at the first block with points that have no value."""

    def __init__(self, points: list[Point]) -> None:
        super().__init__("values are needed")
        self.points = points


def next_point(sizes: list[int], known: Mapping[Point, float | None], rank: int, seed: int) -> Point:
    """The first point that TTOpt asks for and that nobody has or works on.

    Args:
        sizes: number of levels of each axis.
        known: value of each point, to be minimised; None while it is being worked on.
    """
    from ttopt import TTOpt

    worst = max((value for value in known.values() if value is not None), default=0.0)

    def values(indices: NDArray[np.intp]) -> NDArray[np.float64]:
        block = [tuple(int(place) for place in row) for row in indices]
        if missing := [point for point in block if point not in known]:
            raise _Asked(missing)
        # a point that is still worked on counts as bad for the moment
        found = [known[point] for point in block]
        return np.array([worst if value is None else value for value in found])

    random = np.random.default_rng([seed, len(known)])
    try:
        if max(sizes) > 1:
            optimiser = TTOpt(values, d=len(sizes), n=sizes, evals=_limit(sizes, known), is_func=False, is_vect=True)
            optimiser.optimize(rank=rank, seed=seed)
    except _Asked as asked:
        return asked.points[0]
    return tuple(int(random.integers(size)) for size in sizes)


def _limit(sizes: list[int], known: Mapping[Point, float | None]) -> int:
    """Requests after which a run that asks for nothing new is ended."""
    return min(_ROUNDS, 20 * (len(known) + sum(sizes)) + 1000)


def _known(
    study: Study, current: FrozenTrial, axes: tuple[Axis, ...], levels: list[tuple[Any, ...]]
) -> dict[Point, float | None]:
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    found: dict[Point, float | None] = {}
    failed: list[Point] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.number == current.number or any(axis.name not in trial.params for axis in axes):
            continue
        try:
            values = [trial.params[axis.name] for axis in axes]
            point = tuple(each.index(value) for each, value in zip(levels, values, strict=True))
        except ValueError:  # not on the grid: enqueued by a person
            continue
        if trial.state == TrialState.COMPLETE and np.isfinite(trial.values[0]):
            found[point] = sign * trial.values[0]
        elif trial.state == TrialState.RUNNING:
            found.setdefault(point, None)
        else:
            failed.append(point)
    worst = max((value for value in found.values() if value is not None), default=0.0)
    return {**dict.fromkeys(failed, worst), **found}
