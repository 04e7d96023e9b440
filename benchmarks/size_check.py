"""How long one check takes when nothing changed: ten files, and recipes that give ten artifacts.

    python benchmarks/size_check.py [--recipes .ci/recipes/int8.yaml …]

The files are blessed first; then the command is timed from its start, the best and the worst of five.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = "from phonefit.pipeline.cli import main; main()"


def phonefit(*arguments, cwd):
    """Run the command; its exit code must be 0."""
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=cwd, check=True, capture_output=True)


def timed_checks(subjects, runs, baseline, cwd, repeats=5):
    """Seconds of each check, after a bless."""
    where = ("--baseline", str(baseline), "--runs", str(runs))
    phonefit("size", "bless", *subjects, *where, "--reason", "benchmark", cwd=cwd)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        phonefit("size", "check", *where, "--strict", cwd=cwd)
        seconds.append(time.perf_counter() - start)
    return seconds


def ten_files(folder, sources):
    """Ten different files, made from the given ones by names that differ."""
    files = []
    for number in range(10):
        source = sources[number % len(sources)]
        target = folder / f"{number}{source.suffix}"
        shutil.copyfile(source, target)
        files.append(target.name)
    return files


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="*", default=[".ci/recipes/int8.yaml", ".ci/recipes/pruned.yaml"])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.recipes:
            seconds = timed_checks(options.recipes, options.runs.absolute(), folder / "recipes.toml", ROOT)
            print(f"{len(options.recipes)} recipes: {min(seconds):.2f} to {max(seconds):.2f} s")
        models = [path for path in sorted(options.runs.glob("store/convert/*/model.*")) if path.suffix != ".json"]
        files = ten_files(folder, models[:10])
        total = sum((folder / file).stat().st_size for file in files)
        seconds = timed_checks(files, folder / "runs", folder / "sizes.toml", folder)
        print(f"10 files, {total / 1e6:.1f} MB: {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
