"""HostDevice: this machine, with a fresh process for each measurement."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from phonefit.device_bench.device import DeviceError, DeviceInfo, Job, MeasurementError, RawRun
from phonefit.device_bench.host_facts import host_conditions, host_info, usable_cores
from phonefit.device_bench.worker import Outcome
from phonefit.models.errors import FileFormatError

_WORKER = "phonefit.device_bench.worker"
# Libraries that start threads of their own read one of these.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_TAIL_CHARACTERS = 2000


class HostDevice:
    """This machine. It cannot limit a process's memory, only measure it."""

    def info(self) -> DeviceInfo:
        """Identify this machine."""
        return host_info()

    def prepare(self) -> None:
        """Nothing to do: conditions are recorded with each run and judged by `stability`."""

    def run(self, job: Job) -> RawRun:
        """Run one job in a fresh process.

        Raises:
            FileFormatError: the file is no model of the job's runtime.
            DeviceError: a memory limit was asked for, there are fewer cores than threads, or the runtime lacks
                something that the model needs.
            MeasurementError: the process crashed, took longer than the job's time-out, or left no result.
        """
        _refuse_impossible(job)
        job = job.model_copy(update={"model": job.model.resolve(), "input_file": _resolved(job.input_file)})
        before = host_conditions()
        with tempfile.TemporaryDirectory(prefix="phonefit-bench-") as name:
            outcome = _run_worker(job, Path(name))
        if outcome.run is None:
            raise (FileFormatError if outcome.file_is_bad else DeviceError)(outcome.error)
        before |= outcome.run.conditions_before
        return outcome.run.model_copy(update={"conditions_before": before, "conditions_after": host_conditions()})

    def cleanup(self) -> None:
        """Nothing to undo: each run removes its own temporary files."""


def _refuse_impossible(job: Job) -> None:
    if job.memory_limit_bytes is not None:
        raise DeviceError(
            f"the host cannot enforce a memory limit ({job.memory_limit_bytes:,} bytes asked); "
            "measure without a limit and hold the peak against it, or use a device that enforces one (emulator, adb)"
        )
    if job.threads > usable_cores():
        raise DeviceError(f"{job.threads} threads asked, but this process may use {usable_cores()} core(s)")


def _resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _run_worker(job: Job, folder: Path) -> Outcome:
    job_file, result_file, log_file = folder / "job.json", folder / "result.json", folder / "log.txt"
    job_file.write_text(job.model_dump_json())
    # -P: the working folder may hold folders named like our dependencies
    command = [sys.executable, "-P", "-W", "ignore", "-m", _WORKER, str(job_file), str(result_file)]
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(job.threads))}
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
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
    if process.returncode != 0:
        raise MeasurementError(
            f"{job.model.name}: {job.runtime} {_ending(process.returncode)} while running it; "
            f"the file may be damaged or made for another version of the runtime{_tail(log_file)}"
        )
    try:
        return Outcome.model_validate_json(result_file.read_bytes())
    except (OSError, ValidationError) as error:
        raise MeasurementError(
            f"{job.model.name}: unusable result of {job.runtime}: {error}{_tail(log_file)}"
        ) from None


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
