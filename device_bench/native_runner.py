"""The native runners: which one, how it is called, and what it answers. Calling it is the devices' work.

Built by `phonefit.device_bench.build_native` from `device_bench/native/`, one folder for each processor architecture
that runs where it lies: on this machine, under qemu-user, or pushed to a device.

Files for and from a runner hold raw numbers, as stored in the model and in its order: `input_bytes` and `read_outputs`.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from phonefit.device_bench.device import Job, MeasurementError, RawRun
from phonefit.device_bench.inputs import make_inputs, stored_bytes
from phonefit.device_bench.runtimes.runtime import Array
from phonefit.models.artifact import Runtime
from phonefit.models.errors import FileFormatError, PhonefitError
from phonefit.models.record import Frozen, Record, digest_of, file_digest
from phonefit.models.spec import TensorSpec

Architecture = Literal["x86_64", "aarch64"]

# What each runner is linked with: distribution names, whose version the runner reports.
PACKAGES: dict[Runtime, str] = {"executorch": "executorch", "tflite": "ai-edge-litert", "onnx": "onnxruntime"}
SOURCES = Path(__file__).resolve().with_name("native")
STAMP = "built.json"

WRONG_USE = 2
_LAST_CHARACTERS = 2000


class Built(Record):
    """What a folder was built from: `inputs` is `inputs_digest()` of then, `files` name -> sha256."""

    schema_number: int = 1
    inputs: str
    files: dict[str, str]


class RunnerTensor(Frozen):
    """An input or output as a runner describes it. Quantised: real = scale * (stored - zero point)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


class RunnerResult(Frozen):
    """What a runner writes, in nanoseconds and bytes.

    Attributes:
        reference_before_ns: of the reference loop, see RawRun.
        timed_from_ns: CLOCK_BOOTTIME when the first timed inference began; None without one.
        baseline_bytes: VmHWM of the process before it loaded the model.
        peak_bytes: VmHWM after the last inference.
    """

    schema_number: Literal[1] = Field(alias="schema")
    runtime: Runtime
    version: str
    threads: int
    load_ns: int
    warmup_ns: tuple[int, ...]
    sample_ns: tuple[int, ...]
    reference_before_ns: tuple[int, ...] = ()
    reference_after_ns: tuple[int, ...] = ()
    timed_from_ns: int | None = None
    timed_until_ns: int | None = None
    baseline_bytes: int
    peak_bytes: int
    inputs: tuple[RunnerTensor, ...]
    outputs: tuple[RunnerTensor, ...]


@dataclass(frozen=True)
class RunnerFolder:
    """The runners for one architecture with their libraries: `bin/` and `lib/`, complete as it is."""

    path: Path

    def runner(self, runtime: Runtime) -> Path | None:
        """The program for a runtime; None when it was not built, or from other sources or packages than there are now.

        Only that the program is there is checked, not its content: see `is_unchanged`.
        """
        program = self.path / "bin" / f"phonefit_{runtime}"
        stamp = self.path / STAMP
        if not program.is_file() or not stamp.is_file() or Built.load(stamp).inputs != inputs_digest():
            return None
        return program

    def is_unchanged(self) -> bool:
        """Whether every file is as it was built."""
        stamp = self.path / STAMP
        if not stamp.is_file():
            return False
        return all(
            (self.path / name).is_file() and file_digest(self.path / name) == sha256
            for name, sha256 in Built.load(stamp).files.items()
        )


def host_architecture() -> str:
    """Of this machine, as in folder names; may be one for which nothing can be built."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def default_root() -> Path:
    """Where the folders are kept: .cache/native of the checkout, or the user's when installed."""
    root = Path(__file__).resolve().parents[1]
    return root / ".cache/native" if (root / "pyproject.toml").is_file() else Path.home() / ".cache/phonefit/native"


def runner_for(runtime: Runtime, architecture: str | None = None, root: Path | None = None) -> Path | None:
    """The runner for a runtime and an architecture (None: this machine's); None when it is not built."""
    return RunnerFolder((root or default_root()) / (architecture or host_architecture())).runner(runtime)


def runners_state(architecture: str, root: Path | None = None) -> Literal["built", "outdated", "not built"]:
    """Of all runners for an architecture; outdated: made from other sources or packages than there are now."""
    folder = RunnerFolder((root or default_root()) / architecture)
    if all(folder.runner(runtime) for runtime in PACKAGES):
        return "built"
    return "outdated" if (folder.path / STAMP).is_file() else "not built"


def package_versions() -> dict[str, str]:
    """Distribution -> version of the packages that runners are linked with; "missing" for one that is not installed."""
    found = {}
    for name in PACKAGES.values():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def inputs_digest() -> str:
    """Digest of all that the runners are made from: sources and package versions."""
    sources = {path.name: file_digest(path) for path in sorted(SOURCES.iterdir()) if path.is_file()}
    return digest_of([sources, package_versions()])


def command(
    runner: Path | str,
    job: Job,
    *,
    model: str,
    result: str,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    reference: int = 0,
    parent: int | None = None,
    marks: bool = False,
) -> list[str]:
    """The command line for a job. Paths are those on the machine that runs it.

    Args:
        runner: the program.
        job: threads, warm-ups, repeats, duration and seed are taken from it; its paths are not.
        model: the model file.
        result: where the result is written.
        inputs: files for the first inputs; the others are pseudo-random.
        outputs: where the first outputs are written after the last inference.
        reference: how often the reference loop is timed before and after; 0 where time does not depend on what else
            goes on.
        parent: process that the runner must not outlive: the one that starts it.
        marks: make the system calls that a counting plugin looks for.
    """
    line = [str(runner), "--model", model, "--result", result]
    for path in inputs:
        line += ["--input", path]
    for path in outputs:
        line += ["--output", path]
    line += ["--threads", str(job.threads), "--warmups", str(job.warmups), "--repeats", str(job.repeats)]
    if job.duration_seconds is not None:
        line += ["--seconds", f"{job.duration_seconds:.9g}"]
    line += ["--seed", str(job.seed)]
    if reference:
        line += ["--reference", str(reference)]
    if parent is not None:
        # as long whatever it is: where instructions and memory are counted, the length of the line shows
        line += ["--parent", f"{parent:010d}"]
    return [*line, *(["--marks"] if marks else [])]


def describe_command(runner: Path | str, *, model: str, result: str) -> list[str]:
    """The command line that loads a model and tells its inputs and outputs, without an inference."""
    return [str(runner), "--model", model, "--result", result, "--warmups", "0", "--repeats", "0"]


def parse_result(text: str) -> RunnerResult:
    """What a runner wrote.

    Raises:
        MeasurementError: it is not a result of this version.
    """
    try:
        return RunnerResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise MeasurementError(f"unusable result of the native runner: {where}: {first['msg']}") from None


def failure(job: Job, exit_code: int, messages: str) -> PhonefitError:
    """The error for a runner that did not end well.

    Args:
        exit_code: 2 wrong use or no model, 3 a failure while running, negative or above 128 a signal.
        messages: what it wrote to standard error.

    Returns:
        FileFormatError for exit code 2, else MeasurementError.
    """
    lines = [line for line in messages.strip().splitlines() if line.startswith("phonefit_")]
    said = lines[-1].partition(": ")[2] if lines else ""
    if exit_code == WRONG_USE and said:
        return FileFormatError(f"{job.model}: {said}")
    last = messages.strip()[-_LAST_CHARACTERS:]
    return MeasurementError(
        f"{job.model.name}: {job.runtime}'s native runner ended with exit status {exit_code}"
        f"{': ' + said if said else ''}; the file may be damaged or made for another version of the runtime"
        + (f"; its last words:\n{last}" if last and not said else "")
    )


def raw_run(result: RunnerResult) -> RawRun:
    """A runner's result as any device reports it."""
    return RawRun(
        load_nanoseconds=result.load_ns,
        warmup_nanoseconds=result.warmup_ns,
        sample_nanoseconds=result.sample_ns,
        baseline_bytes=result.baseline_bytes,
        peak_bytes=result.peak_bytes,
        versions={PACKAGES[result.runtime]: result.version},
        reference_before_nanoseconds=result.reference_before_ns,
        reference_after_nanoseconds=result.reference_after_ns,
        timed_from_seconds=_seconds(result.timed_from_ns),
        timed_until_seconds=_seconds(result.timed_until_ns),
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def input_bytes(result: RunnerResult, job: Job) -> list[bytes]:
    """The job's inputs for a model that a runner has described, the same as the Python runtimes get.

    Raises:
        DeviceError: the job's input file does not fit the first input.
    """
    specs = tuple(
        TensorSpec(name=each.name, shape=each.shape, dtype=each.dtype, scale=each.scale, zero_point=each.zero_point)
        for each in result.inputs
    )
    return [stored_bytes(array) for array in make_inputs(specs, job.seed, job.input_file)]


def read_outputs(result: RunnerResult, files: Sequence[Path]) -> list[Array]:
    """The outputs that a runner wrote, one file each, in stored form.

    Raises:
        MeasurementError: a file is missing or has another size than its output.
    """
    arrays: list[Array] = []
    for tensor, path in zip(result.outputs, files, strict=True):
        kind = np.dtype(tensor.dtype).newbyteorder("<")
        try:
            arrays.append(np.frombuffer(path.read_bytes(), kind).reshape(tensor.shape))
        except (OSError, ValueError) as error:
            raise MeasurementError(f"output {tensor.name!r} of the native runner: {error}") from None
    return arrays
