"""How long `phonefit --help` takes, as a multiple of an empty Python process: python benchmarks/start_up.py"""

import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Run both in turn, so that a change of the machine's speed meets both, and print medians and their ratio."""
    empty = [sys.executable, "-c", "pass"]
    helped = [sys.executable, "-m", "phonefit.pipeline.cli", "--help"]
    pairs = [(seconds(empty), seconds(helped)) for _ in range(RUNS)]
    base, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(helped / empty for empty, helped in pairs)
    print(
        f"python -c pass: {base * 1e3:.1f} ms, phonefit --help: {ours * 1e3:.1f} ms, ratio {ratio:.1f} ({RUNS} pairs)"
    )


if __name__ == "__main__":
    main()
