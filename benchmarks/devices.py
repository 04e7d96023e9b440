"""Whether the devices keep their promises, as a Markdown table: python benchmarks/devices.py

Makes a MobileNetV2 of 224 px with random weights, float and int8 for each runtime, in .cache/benchmarks (two minutes,
once). `phone` stops the emulated phone first, to time its start; `host` keeps this machine busy for a while.
"""

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import Job
from phonefit.device_bench.emulator.phone import EmulatedPhone
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.host_facts import host_info
from phonefit.device_bench.interleave import interleave
from phonefit.device_bench.report import Report
from phonefit.device_bench.runtimes.detect import runtime_of
from phonefit.models.artifact import SUFFIXES

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks"
CLASSES, PICTURES, SIZE = 10, 8, 224
INT8, FP32 = "quantised-int8", "float-fp32"
RUNTIMES = sorted(SUFFIXES)


@dataclass(frozen=True)
class Row:
    """One line of the table. `kept`: None where nothing was promised."""

    what: str
    asked: str
    found: str
    kept: bool | None

    def __str__(self) -> str:
        mark = {True: "yes", False: "NO", None: ""}[self.kept]
        return f"| {self.what} | {self.asked} | {self.found} | {mark} |"


def make_models() -> dict[str, Path]:
    """ "quantised-int8.tflite" and so on -> path, made by the pipeline's converters."""
    names = [f"{stem}{suffix}" for stem in (INT8, FP32) for suffix in SUFFIXES.values()]
    if not all((CACHE / "files" / name).is_file() for name in names):
        _make_models()
    return {name: CACHE / "files" / name for name in names}


def _make_models() -> None:
    import torch
    from PIL import Image

    from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
    from phonefit.models.quantisation import CalibrationSet, Quantisation
    from phonefit.models.registry import build_network
    from phonefit.models.spec import Architecture
    from phonefit.pipeline.context import SilentProgress
    from phonefit.pipeline.recipe import Recipe
    from phonefit.pipeline.run import convert_checkpoint, open_context

    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (CACHE / f"pictures/class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(PICTURES):
            coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3)).astype(np.uint8))
            coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(CACHE / f"pictures/class{label}/{number}.png")
    recipe = Recipe(
        name="devices",
        model={"family": "mobilenet_v2"},
        data={"source": "image_folder", "path": CACHE / "pictures"},
        # random weights decide nothing: what the file computes matters here only as far as phones agree on it
        convert={"parity": {"samples": 4, "cosine": 0.5, "snr_db": 0.0, "agreement": 0.0}},
    )
    context = open_context(recipe, CACHE / "runs", SilentProgress())
    torch.manual_seed(0)
    shape = Architecture(family="mobilenet_v2", outputs=CLASSES, height=SIZE, width_pixels=SIZE)
    network = build_network(shape).train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the average of all batches
    with torch.no_grad():
        for start in (0, 16):
            network(torch.from_numpy(context.data.inputs("train", start, start + 16)))
    for stem, quantisation in (
        ("quantised", Quantisation(calibration=CalibrationSet(samples=16))),
        ("float", None),
    ):
        info = CheckpointInfo(
            architecture=shape,
            task="classification",
            labels=context.data.labels,
            preprocess=context.data.preprocess,
            quantisation=quantisation,
        )
        Checkpoint.save(CACHE / stem, network.eval(), info)
        convert_checkpoint(CACHE / stem, recipe, CACHE / "files", CACHE / "runs", SilentProgress())


def timed(action: Callable[[], Report]) -> tuple[Report, float]:
    """A report and how many seconds it took."""
    start = time.monotonic()
    return action(), time.monotonic() - start


def _children_seconds() -> float:
    """Processor time of all processes that were started here and have ended."""
    used = os.times()
    return used.children_user + used.children_system


def of_counts(models: dict[str, Path]) -> Iterator[Row]:
    """emulator:counts: three benchmarks of one int8 file of each runtime."""
    for runtime in RUNTIMES:
        path = models[f"{INT8}{SUFFIXES[runtime]}"]
        before = _children_seconds()
        several = [timed(lambda path=path: bench(path, device="emulator:counts")) for _ in range(3)]
        slowest, work = max(seconds for _, seconds in several), (_children_seconds() - before) / 3
        first, *others = (report for report, _ in several)
        alike = all(other.figures == first.figures for other in others)
        samples = {name: figure.samples[-1] for name, figure in first.figures.items() if figure.samples}
        found = (
            f"{samples['instructions']:,.0f} instructions, {samples['read_bytes']:,.0f} bytes read, "
            f"{samples['written_bytes']:,.0f} written, {first.median_milliseconds():.2f} ms modelled, "
            f"peak {first.peak_memory_bytes() / 1e6:.2f} MB"
        )
        yield Row(f"`emulator:counts`, int8 {path.suffix}, 3 runs", "every figure identical", found, alike)
        spent = f"{slowest:.1f} s (slowest of 3); {work:.1f} s of one core"
        yield Row(f"`emulator:counts`, one benchmark of it, {path.suffix}", "at most 5 s", spent, slowest <= 5)


def of_phone(models: dict[str, Path]) -> Iterator[Row]:
    """emulator: times, outputs, memory limit, clock."""
    EmulatedPhone().stop()
    first = models[f"{INT8}.tflite"]
    _, cold = timed(lambda: bench(first, device="emulator"))
    yield Row("`emulator`, stopped, to the end of the first benchmark", "at most 60 s", f"{cold:.1f} s", cold <= 60)
    slowest = 0.0
    for path in models.values():
        report, seconds = timed(lambda path=path: bench(path, device="emulator"))
        slowest = max(slowest, seconds)
        if INT8 in path.name:
            counted = bench(path, device="emulator:counts").figures["instructions"].samples[-1]
            share = report.median_milliseconds() * 1e6 / counted - 1
            found = f"{report.median_milliseconds():.3f} ms, {counted:,.0f} counted: {share:+.2%}"
            asked = "the counted instructions within 1 %"
            yield Row(f"`emulator`, guest time of int8 {path.suffix}", asked, found, abs(share) <= 0.01)
    yield Row(
        "`emulator`, a benchmark while it runs",
        "at most 15 s",
        f"{slowest:.1f} s (slowest of {len(models)})",
        slowest <= 15,
    )
    for path in models.values():
        yield _outputs(path)
    yield from _budget(models[f"{FP32}.pte"])


def _outputs(path: Path) -> Row:
    with tempfile.TemporaryDirectory() as name:
        arrays = []
        for device in (HostDevice(), EmulatedPhone()):
            target = Path(name) / "outputs.npz"
            job = Job(model=path, runtime=runtime_of(path), warmups=0, repeats=1, output_file=target)
            try:
                device.prepare()
                device.run(job)
            finally:
                device.cleanup()
            with np.load(target) as outputs:
                arrays.append(outputs["output_0"].astype(np.float64))
    here, there = arrays
    apart = float(np.abs(here - there).max())
    found = f"largest difference {apart:.2g}, outputs span {np.ptp(here):.2g}"
    # ONNX Runtime's integer kernels round in another way on each processor
    promised = path.name != f"{INT8}.onnx"
    what = f"`emulator`, outputs of {path.name} against this machine's"
    return Row(what, "equal within 1e-5" if promised else "", found, apart <= 1e-5 if promised else None)


def _budget(path: Path) -> Iterator[Row]:
    need = int(bench(path, device="emulator").figures["process_memory"].samples[0])
    for share, code, verdict in ((0.6, 1, "out of memory"), (1.1, 0, "latency, median")):
        limit = int(need * share)
        line = ["bench", str(path), "--device", "emulator", "--memory-limit", f"{limit}B"]
        done = subprocess.run(
            [sys.executable, "-m", "phonefit.pipeline.cli", *line], capture_output=True, text=True, check=False
        )
        kept = done.returncode == code and verdict in done.stdout + done.stderr
        found = f'exit {done.returncode}, {"" if kept else "not "}"{verdict}"'
        what = f"`emulator --memory-limit {limit / 1e6:.1f}MB`, {path.name} needs {need / 1e6:.1f} MB"
        yield Row(what, f'exit {code}, "{verdict}"', found, kept)


def of_host(models: dict[str, Path]) -> Iterator[Row]:
    """host: a file against itself, alone and beside other work."""
    path = models[f"{INT8}.onnx"]
    for name, busy in (("", False), (", every core busy", True)):
        with _busy() if busy else contextlib.nullcontext():
            result = interleave(path, path, HostDevice())
            report = bench(path, attempts=1)
        found = f"{result.ratio:.3f} ({result.low:.3f} to {result.high:.3f}): {result.outcome}"
        kept = result.outcome == "no clear difference"
        yield Row(f"`host --interleave`, a file with itself{name}", "no clear difference", found, kept)
        reasons = "; ".join(doubt.reason for doubt in report.untrusted) or "trusted"
        # alone means as quiet as this machine happens to be
        yield Row(f"`host`, one benchmark{name}", "untrusted" if busy else "", reasons, not report.trusted or None)


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


PARTS = {"counts": of_counts, "phone": of_phone, "host": of_host}


def main(arguments: list[str]) -> int:
    """Print the table; 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="a part; all when nothing is said")
    only = parser.parse_args(arguments).only
    models = make_models()
    info = host_info()
    machine = f"{info.name}, {info.cores} cores, {platform.system()} {platform.machine()}"
    print(f"{date.today().isoformat()}, {machine}, load average {os.getloadavg()[0]:.1f}\n")
    print("| what | asked | found | kept |\n|---|---|---|---|")
    failed = 0
    for part in [only] if only else PARTS:
        for row in PARTS[part](models):
            print(row, flush=True)
            failed += row.kept is False
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
