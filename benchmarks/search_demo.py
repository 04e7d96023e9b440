"""phonefit's own space on the demo's photographs: the tables of docs/search-demo.md.

    python benchmarks/search_demo.py [build] [replay] [show] [--seeds 10] [--samplers tpe gp …]

build runs each point of the space once, by run_trial, on emulator:counts: about 40 minutes of one idle core. replay
searches that lookup with the real loop, samplers and checks. show prints the tables and draws docs/search-demo.svg.
Without a word all three are done. Everything is kept in .cache/benchmarks/search-demo: a killed run goes on where it
was.
"""

import argparse
import os
import platform
import sys
from datetime import date
from pathlib import Path

from search_demo_lookup import build
from search_demo_replay import RULES, TRIALS, keep, kept, read_lookup, replay
from search_demo_tables import by_rules, by_seconds, by_trials, facts, plot

from phonefit.device_bench.host_facts import host_info
from phonefit.pipeline.progress import TerminalProgress, error_console

SAMPLERS = ("grid", "random", "tpe", "nsga2", "tensor_train", "gp")
SCREENED = {"tpe": tuple(RULES), "tensor_train": ("none", "architecture")}
"""Sampler -> the rules that are tried with it: all with the default of a recipe."""
LIMITS = {None: {"none", *(rules for rules in RULES if "promotion" in rules)}, 800_000: {*RULES}, 400_000: {*RULES}}
"""Limit of instructions -> rules that can do something: without a budget, and with one that a half or a quarter of the
space keeps. What is checked of the architecture and before the device needs one."""
PLOT = Path(__file__).resolve().parents[1] / "docs" / "search-demo.svg"


def compute(samplers: tuple[str, ...], seeds: int) -> None:
    """Run the searches that are missing."""
    import torch

    torch.set_num_threads(1)
    lookup, done = read_lookup(), {(run.sampler, run.rules, run.instructions, run.seed): run for run in kept()}
    wanted: list[tuple[str, str, int | None, int]] = [
        (name, "none", None, seed) for name in samplers for seed in range(seeds)
    ]
    wanted += [
        (name, rules, limit, seed)
        for name, tried in SCREENED.items()
        if name in samplers
        for limit, possible in LIMITS.items()
        for rules in tried
        if rules in possible
        for seed in range(seeds)
    ]
    wanted.sort(key=lambda run: run[0] == "gp")  # the dearest last
    with TerminalProgress(error_console()).stage("replay", len(wanted)) as advance:
        for name, rules, limit, seed in wanted:
            if (name, rules, limit, seed) not in done:
                plain = done.get((name, "none", limit, seed))
                target = plain.shares[TRIALS - 1] if plain else 0.0
                done[name, rules, limit, seed] = keep(replay(lookup, name, rules, seed, limit, target))
            advance(note=f"{name}, rules {rules}, seed {seed}")


def show() -> None:
    """Print the tables, and draw the plot."""
    runs = kept()
    info = host_info()
    machine = f"{info.name}, {info.cores} cores, {platform.system()} {platform.machine()}"
    print(f"{date.today().isoformat()}, {machine}, load average {os.getloadavg()[0]:.1f}\n")
    for title, lines in (
        ("The space", facts(read_lookup())),
        ("Share of the hypervolume against trials", by_trials(runs)),
        ("Share of the hypervolume against trial-seconds", by_seconds(runs)),
        *((f"Cheap before dear, sampler {name}", by_rules(runs, name)) for name in SCREENED),
    ):
        print(f"\n## {title}\n\n" + "\n".join(lines))
    plot(runs, PLOT)


def main(arguments: list[str]) -> int:
    """Build, replay, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", choices=("build", "replay", "show"), help="all when nothing is said")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    options = parser.parse_args(arguments)
    steps = options.steps or ["build", "replay", "show"]
    if "build" in steps:
        build()
    if "replay" in steps:
        compute(tuple(options.samplers), options.seeds)
    if "show" in steps:
        show()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
