"""Measure one model file on one device: preconditions, run, judge, repeat if untrusted -> Report."""

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue, ValidationError

from phonefit.device_bench.device import Device, DeviceError, DeviceInfo, Job, MeasurementError, RawRun
from phonefit.device_bench.devices import open_device
from phonefit.device_bench.energy import EnergyUnavailableError, unavailable
from phonefit.device_bench.energy import figure as energy_figure
from phonefit.device_bench.energy_costs import modelled_energy
from phonefit.device_bench.report import Doubt, Figure, Report, Unit
from phonefit.device_bench.runtimes.detect import runtime_of
from phonefit.device_bench.stability import check
from phonefit.models.artifact import Runtime
from phonefit.models.record import file_digest

# Takes one line about what goes on.
Progress = Callable[[str], None]

_MEMORY = {
    ("measured", "resident"): "peak resident memory",
    ("measured", "proportional"): "peak proportional set size (PSS)",
    ("counted", "resident"): "peak of touched pages that were not given back,",
}


TIMEOUT_SECONDS = 300.0
"""For loading, warm-up and repeats; a wanted duration comes on top."""


def bench(
    model: Path,
    *,
    device: str | Device = "host",
    runtime: Runtime | None = None,
    threads: int = 1,
    warmups: int = 5,
    repeats: int = 50,
    duration_seconds: float | None = None,
    memory_limit_bytes: int | None = None,
    energy: bool = False,
    attempts: int = 2,
    progress: Progress | None = None,
) -> Report:
    """Measure a .pte, .tflite or .onnx file, whoever made it, on one fixed random input.

    Args:
        model: the file. Where phonefit's description NAME.json lies beside it, layouts are taken from there.
        device: a name from `devices.DEVICES`, or a device that the caller prepares and cleans up.
        runtime: refuse the file unless it is for this runtime; None takes what the file is for.
        threads: of the runtime.
        warmups: first inferences, kept apart from the samples.
        repeats: timed inferences.
        memory_limit_bytes: enforced on the process; one that needs more gives a report that is `out_of_memory`.
        duration_seconds: go on until this much time has passed, too.
        energy: measure the energy of an inference, on devices that can: for the duration, or 30 s, after an idle
            baseline of that length. A device that cannot gives a figure that is unavailable, and why.
        attempts: an untrusted measurement is repeated up to this many times in all, and the most trusted is kept: the
            one with the fewest warnings, of those the one that varies least.
        progress: called with one line about each attempt.

    Raises:
        FileFormatError: the file is not a model, or is for another runtime.
        UnknownNameError: no device of that name.
        DeviceError: a setting is out of its range, or the device cannot run the model.
        MeasurementError: the run itself failed.
    """
    if attempts < 1:
        raise DeviceError(f"attempts must be at least 1 but got {attempts}")
    job = job_of(
        Path(model),
        runtime=runtime,
        threads=threads,
        warmups=warmups,
        repeats=repeats,
        duration_seconds=duration_seconds,
        memory_limit_bytes=memory_limit_bytes,
        energy=energy,
    )
    say = progress or _say_nothing
    if not isinstance(device, str):
        return _most_trusted(device, job, attempts, say)
    target = open_device(device)
    try:
        target.prepare()
        return _most_trusted(target, job, attempts, say)
    finally:
        target.cleanup()


def job_of(
    model: Path,
    *,
    runtime: Runtime | None = None,
    threads: int = 1,
    warmups: int = 5,
    repeats: int = 50,
    duration_seconds: float | None = None,
    memory_limit_bytes: int | None = None,
    energy: bool = False,
) -> Job:
    """The job of a measurement; settings as of `bench`.

    Raises:
        FileFormatError: the file is not a model.
        DeviceError: it is for another runtime, or a setting is out of its range.
    """
    found = runtime_of(model)
    if runtime is not None and runtime != found:
        raise DeviceError(
            f"{model}: is for {found}, but {runtime} was asked for; leave the runtime out or give {found}"
        )
    try:
        return Job(
            model=model,
            runtime=found,
            threads=threads,
            warmups=warmups,
            repeats=repeats,
            duration_seconds=duration_seconds,
            memory_limit_bytes=memory_limit_bytes,
            energy=energy,
            timeout_seconds=TIMEOUT_SECONDS + (duration_seconds or 0.0),
        )
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]} = {item['input']!r}: {item['msg']}" for item in error.errors())
        raise DeviceError(f"cannot measure {model.name} so: {wrong}") from None


def _most_trusted(device: Device, job: Job, attempts: int, progress: Progress) -> Report:
    info, digest = device.info(), file_digest(job.model)
    best: Report | None = None
    done = 0
    while done < attempts and (best is None or not best.trusted):
        done += 1
        progress(f"measuring {job.model.name} on {info.name}, attempt {done} of at most {attempts}")
        try:
            report = report_of(job, device.run(job), info, digest)
        except MeasurementError as error:
            if best is None:
                raise
            # what an earlier attempt measured is not lost, but no longer above suspicion either
            failure = Doubt(reason=f"attempt {done} failed: {error}", remedy="measure again; it should not fail")
            best = best.model_copy(update={"untrusted": (*best.untrusted, failure)})
            break
        if best is None or _rank(report) < _rank(best):
            best = report
    assert best is not None  # attempts is at least 1
    return best.model_copy(update={"settings": {**best.settings, "attempts": done}})


def _rank(report: Report) -> tuple[int, float]:
    return len(report.untrusted), report.variation() if report.figures["latency"].samples else 0.0


def report_of(job: Job, run: RawRun, info: DeviceInfo, model_sha256: str) -> Report:
    """The report on one run of one job."""
    settings: dict[str, JsonValue] = {
        "threads": job.threads,
        "warmups": job.warmups,
        "repeats": job.repeats,
        "duration_seconds": job.duration_seconds,
        "memory_limit_bytes": job.memory_limit_bytes,
        "seed": job.seed,
        "energy": job.energy,
    }
    modelled = f"; {run.latency_note}" if run.latency_source == "modelled" else ""
    figures = {
        "latency": Figure(
            unit="ns",
            source=run.latency_source,
            samples=run.sample_nanoseconds,
            note="one inference, copying inputs in and outputs out" + modelled,
        ),
        "warmup": Figure(unit="ns", source=run.latency_source, samples=run.warmup_nanoseconds),
        "load": Figure(
            unit="ns",
            source=run.latency_source,
            samples=(run.load_nanoseconds,),
            note="the work of the processor alone" + modelled
            if modelled
            else "the file had just been read, so it comes from the page cache",
        ),
        "peak_memory": Figure(
            unit="bytes",
            source=run.memory_source,
            samples=(max(run.peak_bytes - run.baseline_bytes, 0),),
            note=f"{_MEMORY[run.memory_source, run.memory_kind]} above the {run.baseline_bytes} bytes of the process "
            "before loading"
            + ("; too low, as what importing needed counts as before" if _counts_from_start(run) else ""),
        ),
        **_energy_figures(job, run, info),
        **{name: Figure(unit=_unit_of(name), source="counted", samples=values) for name, values in run.counts.items()},
        **{
            f"load_{name}": Figure(unit=_unit_of(name), source="counted", samples=(value,))
            for name, value in run.load_counts.items()
        },
    }
    references = (("before", run.reference_before_nanoseconds), ("after", run.reference_after_nanoseconds))
    for moment, times in references:
        if times:
            figures[f"reference_{moment}"] = Figure(
                unit="ns", source="measured", samples=times, note=f"fixed arithmetic, {moment} the inferences"
            )
    if run.cgroup_peak_bytes is not None:
        figures["process_memory"] = Figure(
            unit="bytes",
            source="measured",
            samples=(run.cgroup_peak_bytes,),
            note="the kernel's peak for the whole process and the pages of its files (memory.peak): what a limit holds",
        )
    if run.out_of_memory:
        ended = Figure(unit="ns", source="unavailable", note="the memory limit ended the process")
        figures |= {"latency": ended, "warmup": ended, "load": ended}
    return Report(
        model_sha256=model_sha256,
        model_bytes=job.model.stat().st_size,
        model_name=job.model.name,
        runtime=job.runtime,
        device=info,
        settings=settings,
        figures=figures,
        conditions_before=run.conditions_before,
        conditions_after=run.conditions_after,
        versions=run.versions,
        untrusted=() if run.out_of_memory else check(run),
        out_of_memory=run.out_of_memory,
    )


def _energy_figures(job: Job, run: RawRun, info: DeviceInfo) -> dict[str, Figure]:
    """Measured where the device could, modelled where it counts; the two never both."""
    if run.energy:
        return {name: energy_figure(estimate) for name, estimate in run.energy.items()}
    if run.energy_note:
        return {"energy": unavailable(run.energy_note)}
    if run.counts:
        try:
            return {"energy": energy_figure(modelled_energy(run.counts))}
        except EnergyUnavailableError as error:
            return {"energy": unavailable(str(error))}
    if info.kind in ("adb", "app") and not job.energy:
        return {"energy": unavailable("it was not asked for (--energy, bench.energy)")}
    return {"energy": unavailable(f"the {info.kind} has no energy source that phonefit reads")}


def _counts_from_start(run: RawRun) -> bool:
    """Whether the peak could not be made to begin at the load (the kernel refused)."""
    return run.conditions_before.get("peak_memory_counts_from") == "process start"


def _unit_of(count: str) -> Unit:
    """Unit of a count by the end of its name."""
    ending = count.rpartition("_")[2]
    return "bytes" if ending == "bytes" else "misses" if ending == "misses" else "instructions"


def _say_nothing(line: str) -> None:
    """Progress for those who asked for none."""
