"""What compression gives on the demo's photographs, as Markdown tables: the tables of docs/compression-results.md.

    python benchmarks/compression.py [--only lite0] [--seeds 3] [--runtimes tflite] [--point "prune, int8"]

Each line is a recipe that run_trial runs: quality of the file on its own runtime, its bytes, and the instructions of
one inference counted on the emulated arm64 core. Every stage is kept in .cache/benchmarks/compression/runs, so a killed
run goes on where it was; every line is also appended to results.jsonl beside it. Choices were made on the validation
side; the test side is only reported.
"""

import argparse
import os
import platform
import sys
from datetime import date

from compression_recipes import BOTH, POINTS, Point, recipe_of
from compression_rows import CACHE, Row, correct_of, heading, keep, line, over_seeds, verdicts

from phonefit.device_bench.host_facts import host_info
from phonefit.models.artifact import Runtime
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.cost import multiply_adds, parameters
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.run import open_context, run_trial, with_test_quality


def measure(network: str, name: str, point: Point, seed: int, runtimes: tuple[Runtime, ...]) -> list[Row]:
    """Run one point; finished stages are reused."""
    recipe, runs = recipe_of(network, point.steps, seed, runtimes), CACHE / "runs"
    trial = run_trial(recipe, runs)
    context = open_context(recipe, runs, SilentProgress())
    rows = []
    for file in with_test_quality(trial.files, recipe, runs, SilentProgress()):
        *_, last = [stage for stage in trial.stages if stage.stage not in ("convert", "evaluate", "measure")]
        checkpoint = Checkpoint(runs / "store" / last.stage / last.key)
        float_network = checkpoint.load()
        assert file.test_quality is not None
        rows.append(
            Row(
                network=network,
                point=name,
                kind=point.kind,
                seed=seed,
                runtime=file.artifact.runtime,
                bytes=file.artifact.bytes,
                instructions=round(file.report.figures["instructions"].samples[-1]),
                multiply_adds=multiply_adds(float_network, checkpoint.info.architecture),
                parameters=parameters(float_network),
                validation=file.quality[trial.quality_name],
                test=file.test_quality[trial.quality_name],
                correct=correct_of(runs / file.path, file.artifact.runtime, context),
            )
        )
    return rows


def table_of(network: str, seeds: int, runtimes: tuple[Runtime, ...], only: str | None) -> None:
    """Run the points of one network and print them as they come."""
    print(heading(network), flush=True)
    rows: list[Row] = []
    for seed in range(seeds):
        for name, point in POINTS[network].items():
            if (seed and not point.chosen) or (only not in (None, name) and point.kind != "original"):
                continue
            wanted = runtimes if point.chosen else runtimes[:1]
            found = measure(network, name, point, seed, wanted)
            keep(found)
            rows += found
            for row in found:
                original = next(
                    one for one in rows if (one.kind, one.seed, one.runtime) == ("original", seed, row.runtime)
                )
                print(line(row, original), flush=True)
    print("\n".join([*over_seeds(rows), *verdicts(rows)]), flush=True)


def main(arguments: list[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*POINTS, "peers"], help="a part; all when nothing is said")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, … of the chosen points")
    parser.add_argument("--runtimes", nargs="+", choices=BOTH, default=list(BOTH))
    parser.add_argument("--point", help="one point, beside the original")
    options = parser.parse_args(arguments)
    info = host_info()
    machine = f"{info.name}, {info.cores} cores, {platform.system()} {platform.machine()}"
    print(f"{date.today().isoformat()}, {machine}, load average {os.getloadavg()[0]:.1f}")
    for network in POINTS:
        if options.only in (None, network):
            table_of(network, options.seeds, tuple(options.runtimes), options.point)
    if options.only in (None, "peers"):
        from compression_peers import table_of_peers

        table_of_peers()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
