"""Samplers as they are compared, and one run of one of them on one problem."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from search_problems import PROBLEMS, Floats, Indices, Problem, random_points

from phonefit.pipeline.search.samplers.nsga2 import POPULATION
from phonefit.pipeline.search.samplers.tensor_train import TensorTrainSampler
from phonefit.pipeline.search.samplers.ttopt import RANK, TTOptSampler

MARKS = (30, 50, 100, 200, 500)
"""Numbers of trials after which methods are compared."""
BATCH = 8
NOISE = 0.05  # standard deviation as a share of the range
LIMIT = 0.3  # the share of all points that keeps the limit
VERSIONS = {"tensor_train": 3}
"""Raised when a sampler of ours suggests other points than before; runs of other versions are left out."""

Space = dict[str, BaseDistribution]
METHODS: dict[str, Callable[[int, Space, bool], BaseSampler]] = {
    "random": lambda seed, space, noisy: RandomSampler(seed=seed),
    "tpe": lambda seed, space, noisy: TPESampler(seed=seed),  # multivariate and with constant liar, as Optuna 5 has it
    "gp": lambda seed, space, noisy: GPSampler(seed=seed, deterministic_objective=not noisy),
    "cmaes": lambda seed, space, noisy: CmaEsSampler(seed=seed, with_margin=True),
    "ttopt": lambda seed, space, noisy: TTOptSampler(seed, space),
    "nsga2": lambda seed, space, noisy: NSGAIISampler(seed=seed, population_size=POPULATION),
    "tensor_train": lambda seed, space, noisy: TensorTrainSampler(seed, space),
}
"""A sampler from a seed, the space, and whether values are noisy: one for a whole study, all else as it comes."""


@dataclass(frozen=True)
class Run:
    """What one run gave.

    Attributes:
        trials: how many there were.
        cpu: seconds of CPU that suggesting took; None where it was not measured.
        lowest: the least loss without noise of what keeps the limit; None where nothing does.
        at: after so many trials, for each of MARKS up to `trials`: the true loss of the trial that looks best, None
            until a limit is kept; with two objectives the share of the hypervolume that is missed, x1000.
    """

    problem: str
    method: str
    seed: int
    version: int
    trials: int
    cpu: float | None
    lowest: float | None
    at: dict[int, float | None]


def run(part: str, name: str, problem: Problem, method: str, seed: int, evaluations: int) -> Run:
    """One study of `evaluations` trials in memory."""
    spent: float | None = None
    if part in ("functions", "tables") and method == "ttopt":
        observed = losses = np.array(ttopt_in_sequence(problem, seed, evaluations))
        costs = np.zeros(evaluations)
    else:
        losses, observed, costs, spent = _study(part, problem, method, seed, evaluations)
    limit = _limit(problem) if part == "constrained" else math.inf
    kept = np.where(costs <= limit, losses, math.nan)
    best = np.array(missed(name, losses, costs)) if part == "two" else best_so_far(kept, observed)
    at = {mark: _or_none(best[mark - 1]) for mark in MARKS if mark <= evaluations}
    lowest = _or_none(np.fmin.reduce(kept))
    return Run(name, method, seed, VERSIONS.get(method, 0), evaluations, spent, lowest, at)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _study(
    part: str, problem: Problem, method: str, seed: int, evaluations: int
) -> tuple[Floats, Floats, Floats, float]:
    """Losses without noise, as they were told, the second figure (0 where there is none), and seconds of CPU."""
    if method == "cmaes" and find_spec("cmaes") is None:
        raise SystemExit("cmaes is not installed: see search_problems.py")
    space = space_of(problem, method)
    study = optuna.create_study(
        directions=["minimize"] * (2 if part == "two" else 1),
        sampler=METHODS[method](seed, space, part == "noise"),
    )
    noise = _noise(problem, seed, evaluations) if part == "noise" else np.zeros(evaluations)
    limit = _limit(problem) if part == "constrained" else math.inf
    losses, costs, spent = np.zeros(evaluations), np.zeros(evaluations), 0.0
    for first in range(0, evaluations, BATCH if part == "batches" else 1):
        start = time.process_time()
        trials = [study.ask(space) for _ in range(BATCH if part == "batches" else 1)]
        spent += time.process_time() - start
        for place, trial in enumerate(trials[: evaluations - first], first):
            point = point_of(trial, problem)
            losses[place] = problem.loss(point)[0]
            told = [losses[place] + noise[place]]
            if part in ("constrained", "two"):
                assert problem.cost is not None
                costs[place] = problem.cost(point)[0]
            if part == "two":
                told.append(costs[place])
            if part == "constrained":
                trial.set_constraint("cost", costs[place] / limit - 1)
            study.tell(trial, [float(value) for value in told])
    return losses, losses + noise, costs, round(spent, 3)


def best_so_far(losses: Floats, observed: Floats) -> Floats:
    """The true loss of the trial that looks best after each trial; nan until there is one that keeps a limit.

    Args:
        losses: without noise; nan where a limit is not kept.
        observed: what the user sees, and takes the best of.
    """
    seen = np.where(np.isnan(losses), np.inf, observed)
    lowest = np.minimum.accumulate(seen)
    return losses[[int(np.flatnonzero(seen == value)[0]) for value in lowest]]


def missed(name: str, losses: Floats, costs: Floats) -> Floats:
    """Share of a table's hypervolume that is missed, x1000, after each trial that is in MARKS (else nan)."""
    low, spread, volume = _whole(name)
    points = (np.stack([losses, costs], 1) - low) / spread
    return np.array(
        [
            1000 * (1 - compute_hypervolume(points[:count], np.ones(2)) / volume) if count in MARKS else math.nan
            for count in range(1, len(points) + 1)
        ]
    )


@cache
def _whole(name: str) -> tuple[Floats, Floats, float]:
    """Least values and ranges of a table's two figures, and the hypervolume of its front where these are 0 and 1."""
    problem = PROBLEMS["two"][name](0)
    places = np.stack(np.unravel_index(np.arange(np.prod(problem.sizes)), problem.sizes), 1)
    assert problem.cost is not None
    every = np.stack([problem.loss(places), problem.cost(places)], 1)
    low, spread = every.min(0), np.ptp(every, axis=0)
    scaled = (every - low) / spread
    ordered = scaled[np.lexsort((scaled[:, 1], scaled[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    front = ordered[np.append(True, ordered[1:, 1] < lowest[:-1])]
    return low, spread, compute_hypervolume(front, np.ones(2))


def space_of(problem: Problem, method: str) -> Space:
    """The axes as a sampler sees them. CMA-ES knows no categories: it has their numbers instead."""
    space: Space = {}
    for axis, (size, nominal) in enumerate(zip(problem.sizes, problem.nominal, strict=True)):
        if problem.continuous:
            space[f"x{axis:02}"] = FloatDistribution(0.0, float(size - 1))
        elif nominal and method != "cmaes":
            space[f"x{axis:02}"] = CategoricalDistribution([str(level) for level in range(size)])
        else:
            space[f"x{axis:02}"] = IntDistribution(0, size - 1)
    return space


def point_of(trial: optuna.Trial, problem: Problem) -> Indices | Floats:
    """What a trial suggests, as the problem takes it: [1, axes]."""
    return np.array([[trial.params[axis] for axis in sorted(trial.params)]]).astype(
        float if problem.continuous else int
    )


class _Enough(Exception):
    """Ends a run of TTOpt."""


def ttopt_in_sequence(problem: Problem, seed: int, evaluations: int) -> list[float]:
    """What TTOptSampler would be told in so many trials, without running TTOpt anew for each of them."""
    from ttopt import TTOpt

    known: dict[bytes, float] = {}

    def values(indices: Indices) -> Floats:
        indices = indices.astype(np.int64)
        for point in indices:
            if point.tobytes() not in known:
                if len(known) == evaluations:
                    raise _Enough
                known[point.tobytes()] = float(problem.loss(point[None])[0])
        return np.array([known[point.tobytes()] for point in indices])

    sizes = list(problem.sizes)
    optimiser = TTOpt(values, d=len(sizes), n=sizes, evals=100 * evaluations, is_func=False, is_vect=True)
    with suppress(_Enough):
        optimiser.optimize(rank=RANK, seed=seed)
    # when TTOpt asks for nothing new, the sampler goes on at random
    rest = problem.loss(random_points(problem, evaluations, seed))
    return [*known.values(), *map(float, rest)][:evaluations]


def _noise(problem: Problem, seed: int, evaluations: int) -> NDArray[np.float64]:
    spread = np.ptp(problem.loss(random_points(problem, 2000, seed=2)))
    noise: NDArray[np.float64] = np.random.default_rng([seed, 5]).normal(0, NOISE * spread, evaluations)
    return noise


def _limit(problem: Problem) -> float:
    assert problem.cost is not None
    return float(np.quantile(problem.cost(random_points(problem, 5000, seed=2)), LIMIT))
