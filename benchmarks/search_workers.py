"""What a second worker brings on two cores, and what the study itself takes: python benchmarks/search_workers.py

Real trials on the demo's photographs in which training dominates: one converter, few inferences. Searches with one and
with two workers take turns, so that a change of the machine's speed meets both. Each has a seed of its own, or it would
find its trainings in the store. The machine should be idle otherwise.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.run import run_trial
from phonefit.pipeline.search.study import search

SPACE = {"finetune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def recipe_of(seed: int, trials: int, epochs: int) -> Recipe:
    """A search in which training takes most of the time."""
    values = {
        "name": f"workers-{seed}",
        "seed": seed,
        "threads": 1,
        "compress": [],
        "data.limit": 800,
        "finetune.epochs": epochs,
        "convert.runtimes": ["onnx"],
        "convert.original": False,  # as the search has it
        "bench.repeats": 10,
        "bench.attempts": 1,
        "search.sampler": "random",
        "search.screening": {"architecture": "off", "before_device": False},
        "search.objectives": ["quality", "bytes"],
        "search.space": SPACE,
        "search.trials": trials,
    }
    return apply_overrides(load_recipe("demo"), values)


def timed(recipe: Recipe, runs: Path, log: Path) -> TrialResult:
    """A trial, with its seconds noted."""
    start = time.perf_counter()
    result = run_trial(recipe, runs)
    with log.open("a") as file:
        file.write(f"{time.perf_counter() - start}\n")
    return result


def measure(recipe: Recipe, runs: Path, workers: int) -> tuple[float, float]:
    """Wall seconds of a search, and the sum of the seconds of its trials."""
    log = runs / f"{recipe.name}.seconds"
    log.touch()
    # several workers run trials as ever: one that is replaced would not give way to the other's measurement
    evaluate = partial(timed, runs=runs, log=log) if workers == 1 else None
    start = time.perf_counter()
    result = search(recipe, runs=runs, evaluate=evaluate, workers=workers)
    wall = time.perf_counter() - start
    assert [trial.state for trial in result.trials] == ["complete"] * recipe.search.trials
    return wall, sum(map(float, log.read_text().split()))


def main() -> None:
    """Print trials per hour of one and of two workers, their ratio, and the share of the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phonefit-workers-") as name:
        runs = Path(name)
        run_trial(recipe_of(0, 1, 1), runs)  # prepares the photographs, which is done once for all trials
        rows = []
        for turn in range(asked.rounds):
            one, inside = measure(recipe_of(2 * turn + 1, asked.trials, asked.epochs), runs, workers=1)
            two, _ = measure(recipe_of(2 * turn + 2, asked.trials, asked.epochs), runs, workers=2)
            rows.append((one, two, inside))
            print(
                f"round {turn}: {3600 * asked.trials / one:.1f} trials an hour with one worker, "
                f"{3600 * asked.trials / two:.1f} with two ({one / two:.2f}x); a trial takes "
                f"{inside / asked.trials:.1f} s, the study {(one - inside) / asked.trials:.2f} s of it "
                f"({(one - inside) / one:.1%})",
                flush=True,
            )
    ratios = [one / two for one, two, _ in rows]
    shares = [(one - inside) / one for one, _, inside in rows]
    print(f"median: {statistics.median(ratios):.2f}x, the study's share {statistics.median(shares):.1%}")


if __name__ == "__main__":
    main()
