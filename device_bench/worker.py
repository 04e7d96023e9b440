"""The process that runs one model and measures it: `python -m phonefit.device_bench.worker JOB.json RESULT.json PID`.

A fresh one for each measurement, so that neither a crash nor memory of an earlier model reaches the next. It ends when
the process PID ends, which started it.

Peak memory. The baseline is this very process just before it loads the model, with the runtime imported: an empty
process of that runtime. The peak is VmHWM at the end. Their difference is what the model costs: its weights, in the
form that the runtime makes of them, its working memory, and the pages of the runtime's code that it is first to use.
Comparing with *another* empty process would add how the two differ, for example in which pages of a large library are
resident. VmHWM is set back to what is resident right before the load, where the kernel allows it, so that a higher
peak while importing hides nothing.

Latency covers one call of the runtime with input arrays that lie ready and output arrays that are handed back, copies
included. Python's garbage collector is off while samples are taken.
"""

import gc
import sys
import time
from pathlib import Path

from phonefit.device_bench.device import Job, MeasurementError, RawRun
from phonefit.device_bench.inputs import make_inputs, save_outputs
from phonefit.device_bench.memory import peak_resident_bytes, restart_peak
from phonefit.device_bench.parent import end_with
from phonefit.device_bench.reference import reference_loops
from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.runtime import Array, Session
from phonefit.models.errors import FileFormatError, PhonefitError
from phonefit.models.record import Frozen, write_atomically

# Since the device booted; macOS has it under the other name.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Outcome(Frozen):
    """What the worker hands back: a run, or the error that a person can act upon."""

    run: RawRun | None = None
    error: str = ""
    file_is_bad: bool = False
    run_failed: bool = False


def measure(job: Job) -> RawRun:
    """Load, warm up, time. Measures the process it is called in, which should be a fresh one.

    Raises:
        FileFormatError: the file is no model of the job's runtime.
        DeviceError: the runtime lacks something that the model or the job needs.
        MeasurementError: the runtime gave up while running it.
    """
    module = runtime_module(job.runtime)
    module.start()
    gc.collect()
    restarted = restart_peak()
    baseline = peak_resident_bytes()
    start = time.perf_counter_ns()
    session = module.load(job.model, job.threads)
    loaded = time.perf_counter_ns()
    inputs = make_inputs(session.inputs, job.seed, job.input_file)
    gc.disable()
    reference_before = reference_loops()
    warmups = tuple(_sample(session, inputs) for _ in range(job.warmups))
    timed_from = time.clock_gettime(_BOOT_CLOCK)
    samples = _samples(session, inputs, job.repeats, job.duration_seconds)
    timed_until = time.clock_gettime(_BOOT_CLOCK)
    reference_after = reference_loops()
    gc.enable()
    peak = peak_resident_bytes()
    if job.output_file is not None:
        save_outputs(session.run(inputs), job.output_file, inputs)
    return RawRun(
        load_nanoseconds=loaded - start,
        warmup_nanoseconds=warmups,
        sample_nanoseconds=samples,
        baseline_bytes=baseline,
        peak_bytes=peak,
        conditions_before={"peak_memory_counts_from": "load" if restarted else "process start"},
        versions={**module.versions(), "python": sys.version.split()[0]},
        reference_before_nanoseconds=reference_before,
        reference_after_nanoseconds=reference_after,
        timed_from_seconds=timed_from,
        timed_until_seconds=timed_until,
    )


def _samples(session: Session, inputs: list[Array], repeats: int, duration_seconds: float | None) -> tuple[int, ...]:
    samples: list[int] = []
    end = time.perf_counter_ns() + int((duration_seconds or 0) * 1e9)
    while len(samples) < repeats or time.perf_counter_ns() < end:
        samples.append(_sample(session, inputs))
    return tuple(samples)


def _sample(session: Session, inputs: list[Array]) -> int:
    start = time.perf_counter_ns()
    session.run(inputs)
    return time.perf_counter_ns() - start


def main(arguments: list[str]) -> None:
    """Read the job, measure, write the outcome. Anything unforeseen ends in a traceback and no outcome."""
    end_with(int(arguments[2]))
    job = Job.model_validate_json(Path(arguments[0]).read_bytes())
    try:
        outcome = Outcome(run=measure(job))
    except PhonefitError as error:
        outcome = Outcome(
            error=str(error),
            file_is_bad=isinstance(error, FileFormatError),
            run_failed=isinstance(error, MeasurementError),
        )
    write_atomically(Path(arguments[1]), outcome.model_dump_json().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
