"""Lines of the tables of benchmarks/compression.py, their intervals, and the log of raw results."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import Runtime
from phonefit.models.record import file_digest
from phonefit.pipeline.context import Context

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks" / "compression"
TEST_PICTURES = 381
Z95 = 1.96
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}  # Student's t by number of seeds


@dataclass(frozen=True)
class Row:
    """One file: accuracies are shares, bytes of the file, instructions of one inference.

    `correct` is a 1 or 0 for each test picture.
    """

    network: str
    point: str
    kind: str
    seed: int
    runtime: str
    bytes: int
    instructions: int
    multiply_adds: int
    parameters: int
    validation: float
    test: float
    correct: str


def wilson(share: float, count: int = TEST_PICTURES) -> tuple[float, float]:
    """95 % interval of a share of `count` (Wilson 1927)."""
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return (centre - spread) / (1 + Z95**2 / count), (centre + spread) / (1 + Z95**2 / count)


def correct_of(path: Path, runtime: Runtime, context: Context) -> str:
    """1 or 0 for each test picture: whether the file decides as its label says. Kept in the store."""

    def build(folder: Path) -> None:
        targets = context.data.targets("test")
        outputs = run_samples(
            runtime_module(runtime).load(path, context.threads), context.data.inputs("test", 0, len(targets))
        )
        (folder / "correct.txt").write_text("".join(map(str, (outputs.argmax(1) == targets).astype(np.int64))))

    result = context.store.compute(
        "compression_correct",
        inputs={"file": file_digest(path), "data": context.data.digest},
        config={},
        code_version=1,
        build=build,
        tools=runtime_module(runtime).versions(),
    )
    return (result.path / "correct.txt").read_text()


def difference(row: Row, original: Row) -> tuple[float, float]:
    """Points of accuracy on the test side more than the original, and the half width of the 95 % interval.

    Of two files on the same pictures only those count that one has right and the other wrong (McNemar 1947).
    """
    pairs = list(zip(row.correct, original.correct, strict=True))
    gained, lost, count = pairs.count(("1", "0")), pairs.count(("0", "1")), len(pairs)
    spread = Z95 * math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2 / count)) / count
    return 100 * (gained - lost) / count, 100 * spread


def keep(rows: Sequence[Row]) -> None:
    """Append raw results to the log."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "results.jsonl").open("a") as log:
        for row in rows:
            log.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(row)}) + "\n")


def heading(title: str) -> str:
    """Title and head of a table."""
    columns = (
        "point",
        "seed",
        "file",
        "bytes",
        "smaller",
        "M instructions",
        "fewer",
        "M multiply-adds",
        "validation",
        "test [95 %]",
        "test, points from float [± 95 %]",
    )
    return f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(row: Row, original: Row) -> str:
    """One file against the float file of the same seed and runtime."""
    low, high = wilson(row.test)
    points, spread = difference(row, original)
    cells = (
        row.point,
        row.seed,
        f".{'pte' if row.runtime == 'executorch' else row.runtime}",
        f"{row.bytes:,}",
        f"{original.bytes / row.bytes:.2f}x",
        f"{row.instructions / 1e6:.2f}",
        f"{original.instructions / row.instructions:.2f}x",
        f"{row.multiply_adds / 1e6:.1f}",
        f"{row.validation:.4f}",
        f"{row.test:.4f} [{low:.3f}, {high:.3f}]",
        f"{points:+.2f} ± {spread:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def over_seeds(rows: Sequence[Row]) -> list[str]:
    """Lines with the mean over seeds of each point and runtime that has several, and its 95 % interval."""
    originals = {(row.seed, row.runtime): row for row in rows if row.kind == "original"}
    lines = []
    for point, runtime in dict.fromkeys((row.point, row.runtime) for row in rows):
        pairs = [
            (row, originals[row.seed, row.runtime]) for row in rows if (row.point, row.runtime) == (point, runtime)
        ]
        if len(pairs) < 2:
            continue
        smaller = statistics.mean(original.bytes / row.bytes for row, original in pairs)
        fewer = statistics.mean(original.instructions / row.instructions for row, original in pairs)
        cells = (
            point,
            runtime,
            len(pairs),
            f"{smaller:.2f}x",
            f"{fewer:.2f}x",
            f"{statistics.mean(row.validation for row, _ in pairs):.4f}",
            _mean_and_spread([100 * (row.validation - original.validation) for row, original in pairs]),
            f"{statistics.mean(row.test for row, _ in pairs):.4f}",
            _mean_and_spread([100 * (row.test - original.test) for row, original in pairs]),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    columns = ("point", "runtime", "seeds", "smaller", "fewer", "validation", "points ± 95 %", "test", "points ± 95 %")
    head = [f"\n| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return head + lines if lines else []


def _mean_and_spread(values: Sequence[float]) -> str:
    """Mean, and half the width of its 95 % interval (Student's t)."""
    spread = T95.get(len(values), Z95) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):+.2f} ± {spread:.2f}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """For each single technique: the combinations that are at least as good on the seeds that both were run with, in
    no more bytes and instructions, on the validation and on the test side; .tflite."""
    shown = [row for row in rows if row.runtime == "tflite"]
    kinds = {row.point: row.kind for row in shown}
    lines = []
    for single in (point for point, kind in kinds.items() if kind == "single"):
        ahead = []
        for point in (point for point, kind in kinds.items() if kind == "combination"):
            pairs = [
                (one, other)
                for one in shown
                for other in shown
                if (one.point, other.point) == (point, single) and one.seed == other.seed
            ]
            if not pairs or any(
                one.bytes > other.bytes or one.instructions > other.instructions for one, other in pairs
            ):
                continue
            validation = 100 * statistics.mean(one.validation - other.validation for one, other in pairs)
            test = 100 * statistics.mean(one.test - other.test for one, other in pairs)
            if min(validation, test) >= 0:
                ahead.append(f"{point} ({validation:+.2f} validation, {test:+.2f} test, {len(pairs)} seeds)")
        lines.append(f"- {single}: {'dominated by ' + '; '.join(ahead) if ahead else 'NOT dominated'}")
    return ["\nSingle techniques against combinations, means over common seeds, .tflite:\n", *lines] if lines else []
