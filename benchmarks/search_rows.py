"""Runs of benchmarks/search.py on disk, their regrets and intervals, and the tables made of them.

benchmarks/search_results/PART.jsonl holds a line for each run: see `Run` in search_methods.py. Lines are only added; of
runs with the same problem, method, seed and version the longest counts.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from search_methods import MARKS, VERSIONS, Run
from search_problems import PROBLEMS, best_known, random_points

RESULTS = Path(__file__).resolve().parent / "search_results"
_DRAWS = 2000

Key = tuple[str, str, int]
"""Problem, method, seed."""


def kept(path: Path) -> dict[Key, Run]:
    """The longest run of each problem, method and seed, of the present versions."""
    found: dict[Key, Run] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        fields = json.loads(line)
        run = Run(**{**fields, "at": {int(mark): figure for mark, figure in fields["at"].items()}})
        key = (run.problem, run.method, run.seed)
        if run.version == VERSIONS.get(run.method, 0) and (key not in found or found[key].trials < run.trials):
            found[key] = run
    return found


def keep(path: Path, run: Run) -> None:
    """Append a line; it is written at once, so that a killed benchmark loses one run at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def regret(loss: float | None, best: float, typical: float) -> float:
    """0 at the best point, 1000 at the median of random ones and where nothing was found."""
    return 1000.0 if loss is None else 1000 * (loss - best) / (typical - best)


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


def figures(part: str, runs: Mapping[Key, Run]) -> dict[Key, dict[int, float]]:
    """What the tables compare, after each of the marks that a run reached: regret, or missed hypervolume.

    The best is the best that is known, by whatever run it was found.
    """
    if part == "two":
        return {key: {mark: value for mark, value in run.at.items() if value is not None} for key, run in runs.items()}
    places = {key: (key[0], key[2] if part == "rotated" else 0) for key in runs}  # where each seed has its own problem
    best: dict[tuple[str, int], float] = {}
    for key, run in runs.items():
        known = best.get(places[key], math.inf if part == "constrained" else _scale(part, *places[key])[0])
        best[places[key]] = min(known, math.inf if run.lowest is None else run.lowest)
    return {
        key: {mark: regret(loss, best[places[key]], _scale(part, *places[key])[1]) for mark, loss in run.at.items()}
        for key, run in runs.items()
    }


def summary(found: Mapping[Key, Mapping[int, float]]) -> list[str]:
    """For each method and number of trials: mean rank of its medians, and mean of the medians with an interval.

    n is the number of seeds, of the problem that has the fewest. A method without a run of each problem is left out.
    """
    problems = list(dict.fromkeys(problem for problem, _, _ in found))
    methods = _methods(found)
    shown = [mark for mark in MARKS if any(mark in of for of in found.values())]
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


def details(found: Mapping[Key, Mapping[int, float]], mark: int) -> list[str]:
    """Median and interval for each problem and method after `mark` trials."""
    methods = [method for method in _methods(found) if any(mark in of for key, of in found.items() if key[1] == method)]
    lines = [f"| problem @{mark} | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for problem in dict.fromkeys(problem for problem, _, _ in found):
        cells = []
        for method in methods:
            (values,) = _at(found, [problem], method, mark)
            low, high = median_interval(values) if values else (0.0, 0.0)
            cells.append(f"{np.median(values):.1f} [{low:.1f}, {high:.1f}] n={len(values)}" if values else "–")
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    return lines


def worse_than_random(found: Mapping[Key, Mapping[int, float]], method: str) -> list[str]:
    """Where the median of a method is above that of random."""
    problems = dict.fromkeys(problem for problem, _, _ in found)
    worse = []
    for mark in MARKS:
        for problem in problems:
            (own,), (random,) = (_at(found, [problem], name, mark) for name in (method, "random"))
            if own and random and np.median(own) > np.median(random):
                worse.append(f"{problem} @{mark}: {np.median(own):.0f} against {np.median(random):.0f}")
    return worse


def _methods(found: Iterable[Key]) -> list[str]:
    return sorted({method for _, method, _ in found}, key=lambda method: (method == "tensor_train", method))


def _at(found: Mapping[Key, Mapping[int, float]], problems: Iterable[str], method: str, mark: int) -> list[list[float]]:
    return [
        [of[mark] for key, of in found.items() if key[:2] == (problem, method) and mark in of] for problem in problems
    ]


def _bootstrap(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over problems of medians over seeds; seeds are drawn anew within each problem."""
    random = np.random.default_rng(0)
    means = np.zeros(_DRAWS)
    for of in values:
        means += np.median(random.choice(np.array(of), size=(_DRAWS, len(of))), axis=1) / len(values)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
