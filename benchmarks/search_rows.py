"""Runs of benchmarks/search.py on disk, their regrets and intervals, and the tables made of them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache

import numpy as np
from optuna._hypervolume import compute_hypervolume
from scipy.stats import rankdata
from search_methods import VERSIONS, Run
from search_problems import CACHE, PROBLEMS, Floats, best_known, random_points

MARKS = (30, 50, 100, 200, 500)
_DRAWS = 2000


def kept(part: str) -> dict[tuple[str, str, int], Run]:
    """The longest run of each problem, method and seed, of the present versions."""
    found: dict[tuple[str, str, int], Run] = {}
    path = CACHE / f"{part}.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else ():
        run = Run(**json.loads(line))
        key = (run.problem, run.method, run.seed)
        current = run.version == VERSIONS.get(run.method, 0) and run.problem in PROBLEMS[part]
        if current and (key not in found or len(found[key].losses) < len(run.losses)):
            found[key] = run
    return found


def keep(run: Run) -> None:
    """Append a line; it is written at once, so that a killed benchmark loses one run at most."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{run.part}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def best_so_far(run: Run) -> Floats:
    """The true loss of the trial that looks best after each trial; the worst known one until a limit is kept."""
    losses = np.array([math.nan if loss is None else loss for loss in run.losses])
    if run.observed:  # the user sees only noisy values, and takes the best of them
        observed = np.array(run.observed)
        lowest = np.minimum.accumulate(observed)
        return losses[[int(np.flatnonzero(observed == value)[0]) for value in lowest]]
    return np.fmin.accumulate(losses)


def regret(losses: Floats, best: float, typical: float) -> Floats:
    """0 at the best point, 1000 at the median of random ones and where nothing was found."""
    scaled: Floats = np.nan_to_num(1000 * (losses - best) / (typical - best), nan=1000.0)
    return scaled


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """A distribution-free interval of the median by order statistics; all of the values where they are too few.

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 - 2 * P(Binomial(n, 1/2) < k) (David and Nagaraja, Order Statistics, 7.1); k is the largest that reaches `level`.
    """
    ordered, count = sorted(values), len(values)
    below, k = 0.0, 0
    while k < count // 2:
        below += math.comb(count, k) / 2**count
        if 1 - 2 * below < level:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[count - k]


@cache
def _scale(part: str, problem: str, seed: int) -> tuple[float, float]:
    made = PROBLEMS[part][problem](seed)
    return best_known(made), float(np.median(made.loss(random_points(made, 2000, seed=0))))


def regrets(part: str, runs: Mapping[tuple[str, str, int], Run]) -> dict[tuple[str, str, int], Floats]:
    """Regret after each trial; the best is the best that is known, by whatever run it was found."""
    found = {}
    moves = part == "rotated"  # problems of which each seed has another
    best: dict[tuple[str, int], float] = {}
    for (problem, _, seed), run in runs.items():
        place = (problem, seed if moves else 0)
        lowest = min((loss for loss in run.losses if loss is not None), default=math.inf)
        known = best.get(place, math.inf if part == "constrained" else _scale(part, *place)[0])
        best[place] = min(known, lowest)
    for key, run in runs.items():
        place = (key[0], key[2] if moves else 0)
        found[key] = regret(best_so_far(run), best[place], _scale(part, *place)[1])
    return found


def hypervolumes(runs: Mapping[tuple[str, str, int], Run]) -> dict[tuple[str, str, int], Floats]:
    """Share of the table's hypervolume that is missed, x1000, after each tenth trial (0 in between); 0 is the whole."""
    whole, found = {}, {}
    for name, make in PROBLEMS["two"].items():
        problem = make(0)
        places = np.stack(np.unravel_index(np.arange(np.prod(problem.sizes)), problem.sizes), 1)
        assert problem.cost is not None
        every = np.stack([problem.loss(places), problem.cost(places)], 1)
        low, spread = every.min(0), np.ptp(every, axis=0)
        whole[name] = low, spread, compute_hypervolume(_front((every - low) / spread), np.ones(2))
    for key, run in runs.items():
        low, spread, volume = whole[key[0]]
        points = (np.column_stack([np.array(run.losses, dtype=np.float64), run.costs]) - low) / spread
        found[key] = 1000 * (
            1 - np.array([compute_hypervolume(points[: end + 1], np.ones(2)) / volume for end in range(len(points))])
        )
    return found


def _front(points: Floats) -> Floats:
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    return ordered[np.append(True, ordered[1:, 1] < lowest[:-1])]


def summary(found: Mapping[tuple[str, str, int], Floats]) -> list[str]:
    """For each method and number of trials: mean rank of its medians, and mean of the medians with an interval.

    n is the number of seeds, of the problem that has the fewest. A method without a run of each problem is left out.
    """
    problems = list(dict.fromkeys(problem for problem, _, _ in found))
    methods = _methods(found)
    shown = [mark for mark in MARKS if any(len(of) >= mark for of in found.values())]
    lines = [
        "| method | " + " | ".join(f"rank @{mark} | regret @{mark}" for mark in shown) + " |",
        "|---|" + "---|" * (2 * len(shown)),
    ]
    ranks: dict[tuple[str, int], float] = {}
    means: dict[tuple[str, int], str] = {}
    for mark in shown:
        values = {method: _at(found, problems, method, mark) for method in methods}
        complete = [method for method in methods if all(len(of) for of in values[method])]
        if not complete:
            continue
        medians = np.array([[np.median(of) for of in values[method]] for method in complete])
        placed = rankdata(medians.round(6), axis=0).mean(axis=1)
        for place, method in enumerate(complete):
            ranks[method, mark] = float(placed[place])
            low, high = _bootstrap(values[method])
            fewest = min(map(len, values[method]))
            means[method, mark] = f"{medians[place].mean():.0f} [{low:.0f}, {high:.0f}] n={fewest}"
    for method in methods:
        cells = [
            f"{ranks[method, mark]:.2f} | {means[method, mark]}" if (method, mark) in ranks else "– | –"
            for mark in shown
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def details(found: Mapping[tuple[str, str, int], Floats], mark: int) -> list[str]:
    """Median and interval for each problem and method after `mark` trials."""
    methods = [
        method for method in _methods(found) if any(len(of) >= mark for key, of in found.items() if key[1] == method)
    ]
    lines = [f"| problem @{mark} | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for problem in dict.fromkeys(problem for problem, _, _ in found):
        cells = []
        for method in methods:
            (values,) = _at(found, [problem], method, mark)
            low, high = median_interval(values) if values else (0.0, 0.0)
            cells.append(f"{np.median(values):.1f} [{low:.1f}, {high:.1f}] n={len(values)}" if values else "–")
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    return lines


def worse_than_random(found: Mapping[tuple[str, str, int], Floats], method: str) -> list[str]:
    """Where the median of a method is above that of random."""
    problems = dict.fromkeys(problem for problem, _, _ in found)
    worse = []
    for mark in MARKS:
        for problem in problems:
            (own,), (random,) = (_at(found, [problem], name, mark) for name in (method, "random"))
            if own and random and np.median(own) > np.median(random):
                worse.append(f"{problem} @{mark}: {np.median(own):.0f} against {np.median(random):.0f}")
    return worse


def _methods(found: Iterable[tuple[str, str, int]]) -> list[str]:
    return sorted({method for _, method, _ in found}, key=lambda method: (method == "tensor_train", method))


def _at(
    found: Mapping[tuple[str, str, int], Floats], problems: Iterable[str], method: str, mark: int
) -> list[list[float]]:
    return [
        [float(of[mark - 1]) for key, of in found.items() if key[:2] == (problem, method) and len(of) >= mark]
        for problem in problems
    ]


def _bootstrap(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over problems of medians over seeds; seeds are drawn anew within each problem."""
    random = np.random.default_rng(0)
    means = np.zeros(_DRAWS)
    for of in values:
        means += np.median(random.choice(np.array(of), size=(_DRAWS, len(of))), axis=1) / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
