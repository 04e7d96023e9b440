"""Planned compression under six budgets, on the demo's photographs: the table of docs/auto.md.

    python benchmarks/auto.py [--budget "file_size: 1MB"]

Each line is `phonefit run demo` with `compress: {auto: true, budget: …}` for a .tflite file. Stages are kept in
.cache/benchmarks/compression/runs: a killed run goes on where it was. Limits of memory and of size are measured on this
machine, the others on the emulated arm64 core.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

import yaml
from compression_rows import CACHE
from pydantic import JsonValue

from phonefit.pipeline.recipe_file import apply_overrides, as_recipe
from phonefit.pipeline.result_plan import PlanResult, PlanTry
from phonefit.pipeline.run import run_trial

COUNTED = "emulator:counts"
BUDGETS: Mapping[str, str] = {
    "{instructions: 10000000, quality_drop: 0.03}": COUNTED,
    "{latency_p90_ms: 2.5, quality_drop: 0.03}": COUNTED,
    "{peak_memory: 9MB, quality_drop: 0.03}": "host",
    "{quality_drop: 0.01}": "host",
    "{file_size: 1MB, quality_drop: 0.03}": "host",
    "{file_size: 400kB, quality_drop: 0.03}": "host",
}
UNITS = {"file_size": (1e3, "kB"), "peak_memory": (1e6, "MB"), "latency_p90_ms": (1, "ms"), "instructions": (1e6, "M")}


def overrides_of(budget: str, device: str) -> dict[str, JsonValue]:
    """What makes a run of the recipe `demo` one line of the table."""
    return {
        "name": "plan-" + "".join(character if character.isalnum() else "-" for character in budget[1:-1]),
        "compress": {"auto": True, "budget": yaml.safe_load(budget), "recover": {"epochs": 1}},
        "budget": {},
        "bench.device": device,
        "convert.runtimes": ["tflite"],
        "convert.original": False,
        "search.after_run": False,
        "search.space": {},
    }


def figures_of(values: Mapping[str, float], limits: Sequence[str]) -> str:
    """The limited figures of one line, with their units."""
    shown = [f"{values[name] / UNITS[name][0]:,.2f} {UNITS[name][1]}" for name in limits if name in values]
    return ", ".join(shown)


def lines_of(budget: str, device: str, plan: PlanResult, seconds: float) -> list[str]:
    """One line for each plan that was built; the last one says whether the budget was met."""
    limits = [name for name in plan.limits if name != "quality_drop"]

    def line(number: int, one: PlanTry) -> str:
        drop = one.measured.get("quality_drop")
        cells = (
            *((f"`{budget}`", device) if number == 1 else ("", "")),
            one.name,
            figures_of(one.estimated, limits),
            figures_of(one.expected, limits) if one.asked else "",
            figures_of(one.measured, limits),
            "" if drop is None else f"{100 * drop:.1f}",
            "met" if one.met else "missed",
            f"{seconds:.0f}" if number == len(plan.tries) else "",
        )
        return f"| {' | '.join(cells)} |"

    return [line(number, one) for number, one in enumerate(plan.tries, 1)]


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", help="budgets that contain this text")
    wanted = parser.parse_args(arguments).budget or ""
    print(
        "| budget | device | plan | scaled | asked | measured | drop, points | | seconds |\n|" + "---|" * 9, flush=True
    )
    for budget, device in BUDGETS.items():
        if wanted not in budget:
            continue
        started = time.monotonic()
        trial = run_trial(apply_overrides(as_recipe("demo"), overrides_of(budget, device)), CACHE / "runs")
        assert trial.plan is not None
        print("\n".join(lines_of(budget, device, trial.plan, time.monotonic() - started)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
