"""Seconds of CPU that one suggestion takes in 10 continuous dimensions, with so many trials in the study."""

import json
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import create_trial
from search_methods import METHODS, Space, point_of, space_of
from search_problems import Problem, random_points, turned

from phonefit.pipeline.progress import TerminalProgress, error_console

AXES = 10
MARKS = {
    "tensor_train": (50, 100, 200, 400, 600, 800, 1000),
    "tpe": (50, 100, 200, 400, 600, 800, 1000),
    "gp": (50, 100, 200),
}
_SUGGESTIONS = 10


def table_of_cost(path: Path, only_show: bool) -> list[str]:
    """Measure what is missing and return the table."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        one = json.loads(line)
        found[one["method"], one["trials"]] = one
    missing = [(method, mark) for method, marks in MARKS.items() for mark in marks if (method, mark) not in found]
    if not only_show:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TerminalProgress(error_console()).stage("cost", len(missing)) as advance:
            for method, mark in missing:
                spent = _seconds(method, mark)
                found[method, mark] = {"mean": float(np.mean(spent)), "longest": max(spent)}
                with path.open("a") as file:
                    file.write(json.dumps({"method": method, "trials": mark, **found[method, mark]}) + "\n")
                advance(note=f"{method}, {mark} trials")
    lines = [
        f"\n## Seconds of CPU a suggestion, d = {AXES}: mean (longest) of {_SUGGESTIONS}\n",
        "| trials | " + " | ".join(MARKS) + " |",
        "|---|" + "---|" * len(MARKS),
    ]
    for mark in MARKS["tensor_train"]:
        cells = (found.get((method, mark)) for method in MARKS)
        shown = (f"{cell['mean']:.3f} ({cell['longest']:.3f})" if cell else "–" for cell in cells)
        lines.append(f"| {mark} | " + " | ".join(shown) + " |")
    return lines


def _seconds(method: str, mark: int) -> list[float]:
    """Of the suggestions after `mark` random trials, and after one that fits from nothing, as a study does once."""
    problem = turned("rosenbrock", AXES, seed=0)
    space = space_of(problem, method)
    study = optuna.create_study(sampler=METHODS[method](0, space, False))
    study.add_trials(
        create_trial(params=dict(zip(space, point, strict=True)), distributions=space, value=value)
        for point, value in zip(*_random(problem, mark), strict=True)
    )
    return [_one(study, space, problem) for _ in range(1 + _SUGGESTIONS)][1:]


def _one(study: optuna.Study, space: Space, problem: Problem) -> float:
    start = time.process_time()
    trial = study.ask(space)
    spent = time.process_time() - start
    study.tell(trial, float(problem.loss(point_of(trial, problem))[0]))
    return spent


def _random(problem: Problem, count: int) -> tuple[list[list[float]], list[float]]:
    points = random_points(problem, count, seed=0)
    return points.tolist(), problem.loss(points).tolist()
