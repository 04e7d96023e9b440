"""HostDevice: this machine, with a fresh process for each measurement."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from phonefit.device_bench.device import DeviceError, DeviceInfo, Job, MeasurementError, RawRun
from phonefit.device_bench.host_facts import host_conditions, host_info, usable_cores, usable_mask
from phonefit.device_bench.inputs import save_outputs
from phonefit.device_bench.native_runner import (
    PACKAGES,
    command,
    describe_command,
    failure,
    input_bytes,
    parse_result,
    raw_run,
    read_outputs,
    runner_for,
)
from phonefit.device_bench.reference import REFERENCE_REPEATS
from phonefit.device_bench.runtimes.detect import require
from phonefit.device_bench.turns import alone
from phonefit.device_bench.worker import Outcome
from phonefit.models.artifact import Runtime
from phonefit.models.errors import FileFormatError

_WORKER = "phonefit.device_bench.worker"
# Libraries that start threads of their own read one of these.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_TAIL_CHARACTERS = 2000


FindRunner = Callable[[Runtime], Path | None]


class HostDevice:
    """This machine. It cannot limit a process's memory, only measure it.

    Args:
        find_runner: the native runner for a runtime, or None where it is not built: then the Python runtime is used.
    """

    limits_memory = False

    def __init__(self, find_runner: FindRunner = runner_for) -> None:
        self._find_runner = find_runner

    def info(self) -> DeviceInfo:
        """Identify this machine, and which runtimes are run by a native program instead of by Python."""
        info = host_info()
        native = [runtime for runtime in PACKAGES if self._find_runner(runtime)]
        return info.model_copy(update={"details": {**info.details, "native_runners": ", ".join(native) or "none"}})

    def prepare(self) -> None:
        """Nothing to do: conditions are recorded with each run and judged by `stability`."""

    def run(self, job: Job) -> RawRun:
        """Run one job in a fresh process. Workers of a search on this machine pause meanwhile.

        Raises:
            FileFormatError: the file is no model of the job's runtime.
            DeviceError: a memory limit was asked for, cores that cannot be had, fewer cores than threads, or the
                runtime lacks something that the model needs.
            MeasurementError: the process crashed, took longer than the job's time-out, or left no result.
        """
        _refuse_impossible(job)
        paths = {"model": job.model, "input_file": job.input_file, "output_file": job.output_file}
        job = job.model_copy(update={name: path and path.resolve() for name, path in paths.items()})
        require(job.model, job.runtime)
        runner = self._find_runner(job.runtime)
        with alone(), tempfile.TemporaryDirectory(prefix="phonefit-bench-") as name:
            before = host_conditions()
            run = _run_native(runner, job, Path(name)) if runner else _run_worker(job, Path(name))
            after = host_conditions()
        return run.model_copy(
            update={
                "conditions_before": {**before, **run.conditions_before},
                "conditions_after": after,
                "versions": {**run.versions, "runner": "native" if runner else "python"},
            }
        )

    def cleanup(self) -> None:
        """Nothing to undo: each run removes its own temporary files."""


def _refuse_impossible(job: Job) -> None:
    if job.memory_limit_bytes is not None:
        raise DeviceError(
            f"the host cannot enforce a memory limit ({job.memory_limit_bytes:,} bytes asked); "
            "measure without a limit and hold the peak against it, or use a device that enforces one (emulator, adb)"
        )
    allowed = usable_cores()
    if job.cpu_mask is not None:
        _refuse_cores(job.cpu_mask)
        allowed = job.cpu_mask.bit_count()
    if job.threads > allowed:
        raise DeviceError(f"{job.threads} threads asked, but the process may use {allowed} core(s)")


def _refuse_cores(mask: int) -> None:
    usable = usable_mask()
    if usable is None:
        raise DeviceError(f"CPU mask {mask:#x} asked, but this system binds no process to cores; leave the mask out")
    if mask & ~usable:
        raise DeviceError(f"CPU mask {mask:#x} asked, but this process may use the cores of {usable:#x} only")
    if shutil.which("taskset") is None:
        raise DeviceError(f"CPU mask {mask:#x} asked, but there is no taskset; install the Debian package util-linux")


def _run_worker(job: Job, folder: Path) -> RawRun:
    """The Python runtime."""
    job_file, result_file = folder / "job.json", folder / "result.json"
    job_file.write_text(job.model_dump_json())
    # -P: the working folder may hold folders named like our dependencies
    line = [sys.executable, "-P", "-W", "ignore", "-m", _WORKER, str(job_file), str(result_file), str(os.getpid())]
    code, log_file = _execute(line, job, folder)
    if code != 0:
        raise MeasurementError(
            f"{job.model.name}: {job.runtime} {_ending(code)} while running it; "
            f"the file may be damaged or made for another version of the runtime{_tail(log_file)}"
        )
    try:
        outcome = Outcome.model_validate_json(result_file.read_bytes())
    except (OSError, ValidationError) as error:
        raise MeasurementError(
            f"{job.model.name}: unusable result of {job.runtime}: {error}{_tail(log_file)}"
        ) from None
    if outcome.run is None:
        kind = FileFormatError if outcome.file_is_bad else MeasurementError if outcome.run_failed else DeviceError
        raise kind(outcome.error)
    return outcome.run


def _run_native(runner: Path, job: Job, folder: Path) -> RawRun:
    """The native runner, on the same inputs as the Python runtime would get."""
    described, result_file = folder / "described.json", folder / "result.json"
    _native(describe_command(runner, model=str(job.model), result=str(described)), job, folder)
    description = parse_result(described.read_text())
    inputs = []
    for index, content in enumerate(input_bytes(description, job)):
        inputs.append(str(folder / f"input_{index}.bin"))
        Path(inputs[-1]).write_bytes(content)
    wanted = len(description.outputs) if job.output_file is not None else 0
    outputs = [str(folder / f"output_{index}.bin") for index in range(wanted)]
    line = command(
        runner,
        job,
        model=str(job.model),
        result=str(result_file),
        inputs=inputs,
        outputs=outputs,
        reference=REFERENCE_REPEATS,
        parent=os.getpid(),
    )
    _native(line, job, folder)
    result = parse_result(result_file.read_text())
    if job.output_file is not None:
        save_outputs(read_outputs(result, [Path(name) for name in outputs]), job.output_file)
    return raw_run(result)


def _native(line: list[str], job: Job, folder: Path) -> None:
    code, log_file = _execute(line, job, folder)
    if code != 0:
        raise failure(job, code, log_file.read_text(errors="replace"))


def _execute(line: list[str], job: Job, folder: Path) -> tuple[int, Path]:
    """Run a command under the job's time-out; returns its exit status and the file with what it said."""
    log_file = folder / "log.txt"
    if job.cpu_mask is not None:
        # replaces itself by the command, which so keeps its parent
        line = ["taskset", f"{job.cpu_mask:x}", *line]
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.threads))}
    with log_file.open("wb") as log:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            process.wait(job.timeout_seconds)
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{job.model.name}: no result on {job.runtime} after {job.timeout_seconds:g} s; ask for fewer repeats "
                f"(now {job.repeats}) or a longer time-out{_tail(log_file)}"
            ) from None
        finally:
            # also when interrupted: no measurement goes on behind one's back
            process.kill()
            process.wait()
    return process.returncode, log_file


def _ending(code: int) -> str:
    if code >= 0:
        return f"failed (exit status {code})"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _tail(log_file: Path) -> str:
    text = log_file.read_text(errors="replace").strip()[-_TAIL_CHARACTERS:]
    return f"; its last words:\n{text}" if text else ""
