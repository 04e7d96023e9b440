"""Samplers on problems with known best values, as Markdown tables: the tables of docs/search-results.md.

    python benchmarks/search.py [--part functions tables …] [--seeds 10] [--evaluations 200] [--methods tensor_train …]

Every run is a line of benchmarks/search_results/PART.jsonl: a killed benchmark goes on where it was, and more seeds can
be added later. `--show` only prints what is there; `--results` takes another folder, for trying things. What must be
installed for it is said in search_problems.py. Run it with OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1: more threads
are slower on matrices of this size.
"""

import argparse
import os
import platform
import sys
import warnings
from datetime import date
from pathlib import Path
from statistics import mean

import optuna
from search_cost import table_of_cost
from search_methods import BATCH, MARKS, METHODS, run
from search_problems import PROBLEMS
from search_rows import RESULTS, details, figures, keep, kept, summary, worse_than_random
from search_ttopt import table_of_ttopt

from phonefit.device_bench.host_facts import host_info
from phonefit.pipeline.progress import TerminalProgress, error_console

PARTS = {
    "functions": "Functions on grids: d = 6 with 16 levels, d = 10 with 10",
    "tables": "Tables of real training runs",
    "rotated": "Continuous and smooth, each seed another place: along a curved valley, or turned away from the axes",
    "noise": "Noise of 5 % of the range: true regret of the trial that looks best",
    "batches": f"Batches of {BATCH}",
    "constrained": "The best that keeps a limit which 30 % of all points keep",
    "two": "Two objectives: share of the hypervolume that is missed, x1000",
}
EVERY = (*PARTS, "ttopt", "cost")
METHODS_OF = {
    "two": ("random", "nsga2", "tpe", "gp", "tensor_train"),
    "constrained": ("random", "nsga2", "tpe", "gp", "tensor_train"),
}
DEFAULT_METHODS = ("random", "tpe", "ttopt", "cmaes", "tensor_train", "gp")


def compute(part: str, path: Path, methods: tuple[str, ...], seeds: range, evaluations: int) -> None:
    """Run what is missing."""
    done = kept(path)
    missing = [
        (problem, method, seed)
        for seed in seeds
        for method in methods
        for problem in PROBLEMS[part]
        if (problem, method, seed) not in done or done[problem, method, seed].trials < evaluations
    ]
    with TerminalProgress(error_console()).stage(f"{part}, {evaluations} trials", len(missing)) as advance:
        for problem, method, seed in missing:
            keep(path, run(part, problem, PROBLEMS[part][problem](seed), method, seed, evaluations))
            advance(note=f"{problem}, {method}, seed {seed}")


def show(part: str, path: Path) -> None:
    """Print the tables of a part."""
    runs = kept(path)
    print(f"\n## {PARTS[part]}\n")
    if not runs:
        print("not run")
        return
    found = figures(part, runs)
    print("\n".join(summary(found)))
    for mark in MARKS:
        if any(mark in of for of in found.values()):
            print("\n" + "\n".join(details(found, mark)))
    spent: dict[str, list[float]] = {}
    for each in runs.values():
        if each.cpu is not None:
            spent.setdefault(each.method, []).append(each.cpu / each.trials)
    print("\nSeconds of CPU a suggestion: " + ", ".join(f"{name} {mean(of):.3f}" for name, of in spent.items()))
    worse = worse_than_random(found, "tensor_train")
    print("\ntensor_train worse than random: " + ("; ".join(worse) or "nowhere"))


def main(arguments: list[str]) -> int:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="what does not fit a part is left out there")
    parser.add_argument("--seeds", type=int, default=10, help="seeds first, first + 1, …")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--evaluations", type=int, default=200, help="trials of each run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the lines")
    parser.add_argument("--show", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")  # that multivariate, margin and GP are experimental
    info = host_info()
    machine = f"{info.name}, {info.cores} cores, {platform.system()} {platform.machine()}"
    print(f"{date.today().isoformat()}, {machine}, load average {os.getloadavg()[0]:.1f}")
    seeds = range(options.first, options.first + options.seeds)
    for part in options.part:
        path = options.results / f"{part}.jsonl"
        if part in ("ttopt", "cost"):
            table = (
                table_of_ttopt(path, options.seeds, options.show)
                if part == "ttopt"
                else table_of_cost(path, options.show)
            )
            print("\n".join(table), flush=True)
            continue
        if not options.show:
            fit = METHODS_OF.get(part, tuple(METHODS))
            methods = tuple(each for each in options.methods or METHODS_OF.get(part, DEFAULT_METHODS) if each in fit)
            compute(part, path, methods, seeds, options.evaluations)
        show(part, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
