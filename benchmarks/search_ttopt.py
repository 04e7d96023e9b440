"""TTOpt's published table: errors of ten functions at d = 10, with what the package gives here.

Sozykin et al., NeurIPS 2022, arXiv 2205.00293, table 1: p = 2, q = 25, rank 4, 1e5 evaluations, mean of 10 runs.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from search_problems import Floats, ackley, griewank, rastrigin

from phonefit.pipeline.progress import TerminalProgress, error_console

AXES = 10


def _alpine(x: Floats) -> Floats:
    return np.abs(x * np.sin(x) + 0.1 * x).sum(1)


def _brown(x: Floats) -> Floats:
    left, right = x[:, :-1] ** 2, x[:, 1:] ** 2
    return (left ** (right + 1) + right ** (left + 1)).sum(1)


def _exponential(x: Floats) -> Floats:
    return -np.exp(-0.5 * (x**2).sum(1))


def _michalewicz(x: Floats) -> Floats:
    return -(np.sin(x) * np.sin(np.arange(1, AXES + 1) * x**2 / np.pi) ** 20).sum(1)


def _qing(x: Floats) -> Floats:
    return ((x**2 - np.arange(1, AXES + 1)) ** 2).sum(1)


def _schaffer(x: Floats) -> Floats:
    squares = x[:, :-1] ** 2 + x[:, 1:] ** 2
    return (0.5 + (np.sin(np.sqrt(squares)) ** 2 - 0.5) / (1 + 0.001 * squares) ** 2).sum(1)


def _schwefel(x: Floats) -> Floats:
    return 418.9829 * AXES - (x * np.sin(np.sqrt(np.abs(x)))).sum(1)


PUBLISHED: dict[str, tuple[Callable[[Floats], Floats], float, float, float, float]] = {
    "Ackley": (ackley, -32.768, 32.768, 0.0, 3.9e-6),
    "Alpine": (_alpine, -10, 10, 0.0, 2.9e-7),
    "Brown": (_brown, -1, 4, 0.0, 1.8e-12),
    "Exponential": (_exponential, -1, 1, -1.0, 4.4e-15),
    "Griewank": (griewank, -100, 100, 0.0, 2.8e-2),
    "Michalewicz": (_michalewicz, 0, np.pi, -9.66015, 1.1e-1),
    "Qing": (_qing, 0, 500, 0.0, 5.5e-9),
    "Rastrigin": (rastrigin, -5.12, 5.12, 0.0, 4.6e-11),
    "Schaffer": (_schaffer, -100, 100, 0.0, 1.8e-1),
    "Schwefel": (_schwefel, 0, 500, 0.0, 1.3e-4),
}
"""Function, low and high end, its best value, and the published mean error."""


def table_of_ttopt(path: Path, seeds: int, only_show: bool) -> list[str]:
    """Run what is missing and return the table."""
    errors: dict[tuple[str, int], float] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        one = json.loads(line)
        errors[one["function"], one["seed"]] = one["error"]
    missing = [(name, seed) for seed in range(seeds) for name in PUBLISHED if (name, seed) not in errors]
    if not only_show:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TerminalProgress(error_console()).stage("TTOpt's table", len(missing)) as advance:
            for name, seed in missing:
                errors[name, seed] = _error(name, seed)
                with path.open("a") as file:
                    file.write(json.dumps({"function": name, "seed": seed, "error": errors[name, seed]}) + "\n")
                advance(note=name)
    lines = [
        "\n## TTOpt's published table: d = 10, 1e5 evaluations, rank 4, mean error\n",
        "| function | published | here | here / published | median here / published | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, (*_, published) in PUBLISHED.items():
        own = [error for (function, _), error in errors.items() if function == name]
        if own:
            mean, median = np.mean(own), np.median(own)
            shares = f"{mean / published:.2g} | {median / published:.2g}"
            lines.append(f"| {name} | {published:.1e} | {mean:.1e} | {shares} | {len(own)} |")
    return lines


def _error(name: str, seed: int) -> float:
    from ttopt import TTOpt

    formula, low, high, best, _ = PUBLISHED[name]
    optimiser = TTOpt(formula, d=AXES, a=low, b=high, p=2, q=25, evals=1e5)
    optimiser.optimize(4, seed=seed)
    return float(abs(optimiser.y_opt - best))
