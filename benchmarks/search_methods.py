"""Samplers as they are compared, and one run of one of them on one problem."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from search_problems import Floats, Indices, Problem, random_points

from phonefit.pipeline.search.samplers.nsga2 import POPULATION
from phonefit.pipeline.search.samplers.tensor_train import TensorTrainSampler
from phonefit.pipeline.search.samplers.ttopt import RANK, TTOptSampler

BATCH = 8
NOISE = 0.05  # standard deviation as a share of the range
LIMIT = 0.3  # the share of all points that keeps the limit
VERSIONS = {"tensor_train": 2}
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
        losses: without noise, in the order of the trials; None where the limit does not hold.
        observed: what the sampler was told; empty where that is the same.
        costs: the second figure; empty where it is not used.
        cpu: seconds of CPU that suggesting took up to each tenth trial.
    """

    part: str
    problem: str
    method: str
    seed: int
    version: int
    losses: list[float | None]
    observed: list[float]
    costs: list[float]
    cpu: list[float]


def run(part: str, name: str, problem: Problem, method: str, seed: int, evaluations: int) -> Run:
    """One study of `evaluations` trials in memory."""
    if part in ("functions", "tables") and method == "ttopt":
        found = ttopt_in_sequence(problem, seed, evaluations)
        return Run(part, name, method, seed, VERSIONS.get(method, 0), [float(loss) for loss in found], [], [], [])
    if method == "cmaes" and find_spec("cmaes") is None:
        raise SystemExit("cmaes is not installed: see search_problems.py")
    space = space_of(problem, method)
    study = optuna.create_study(
        directions=["minimize"] * (2 if part == "two" else 1),
        sampler=METHODS[method](seed, space, part == "noise"),
    )
    noise = _noise(problem, seed, evaluations) if part == "noise" else np.zeros(evaluations)
    limit = _limit(problem) if part == "constrained" else np.inf
    losses: list[float | None] = []
    observed, costs, cpu, spent = [], [], [], 0.0
    while len(losses) < evaluations:
        start = time.process_time()
        trials = [study.ask(space) for _ in range(BATCH if part == "batches" else 1)]
        spent += time.process_time() - start
        for trial in trials:
            point = point_of(trial, problem)
            loss = float(problem.loss(point)[0])
            told = [loss + float(noise[min(len(losses), evaluations - 1)])]
            if part in ("constrained", "two"):
                assert problem.cost is not None
                costs.append(float(problem.cost(point)[0]))
            if part == "two":
                told.append(costs[-1])
            if part == "constrained":
                trial.set_constraint("cost", costs[-1] / limit - 1)
            losses.append(loss if part != "constrained" or costs[-1] <= limit else None)
            observed.append(told[0])
            study.tell(trial, told)
            if len(losses) % 10 == 0:
                cpu.append(round(spent, 3))
    return Run(
        part, name, method, seed, VERSIONS.get(method, 0), losses, observed if part == "noise" else [], costs, cpu
    )


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
