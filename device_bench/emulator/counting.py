"""CountingDevice: one emulated ARM64 core that counts what a model costs, exactly and the same on every run.

The native runner for aarch64 runs under qemu-user with a plugin (`device_bench/native/counts.c`) that counts
instructions by class, bytes read and written, misses of simulated caches, and touched pages of memory. Nothing of it
depends on what else this machine does, so one run is a measurement and two timed inferences show that they agree. The
latency is an estimate made from the counts: see `phonefit.device_bench.emulator.latency_model`.

One thread only: several would count each other's waiting, which is not repeatable. The memory is what Linux would call
resident, see counts.c; the emulator's own memory says nothing about the guest.
"""

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phonefit.device_bench import native_runner
from phonefit.device_bench.device import DeviceError, DeviceInfo, Job, MeasurementError, RawRun
from phonefit.device_bench.emulator.latency_model import TERMS, Core, core_named, cores
from phonefit.device_bench.native_runner import STAMP, Built, RunnerResult, default_root, runner_for, runners_state
from phonefit.device_bench.runtimes.detect import require
from phonefit.models.record import Frozen, digest_of, file_digest

GUEST = "aarch64"
EMULATOR = "qemu-aarch64"
DEFAULT_CORE = "cortex-a76"
# What a program needs of the guest's system.
SYSTEM_LIBRARIES = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
# To be raised when the libraries are laid out in another way.
_ROOT_LAYOUT = 1
# Where runtimes look for graphics processors and accelerators: there are none.
EMPTY_FOLDERS = ("sys/bus/pci/devices", "sys/class/accel", "sys/class/drm")
# Counts repeat, so that more inferences tell nothing new: the first fills caches, the next two show that it is over.
LARGEST_WARMUPS = 1
LARGEST_REPEATS = 2

# Marks, as device_bench/native/runner.cpp makes them.
_BEFORE_LOAD, _AFTER_LOAD, _BEFORE_FIRST, _AFTER_FIRST = 0, 1, 2, 10
# The plugin's classes of instructions.
_CLASSES = ("integer", "branch", "memory", "simd_multiply", "simd_other")
_REMEDY = "build it: make emulator"


class Totals(Frozen):
    """Counts since the start of the program, at one mark."""

    mark: int
    instructions: int
    integer: int
    branch: int
    memory: int
    simd_multiply: int
    simd_other: int
    read_bytes: int
    written_bytes: int
    l1_misses: int
    l2_misses: int
    l3_misses: int
    resident_bytes: int
    peak_bytes: int

    def since(self, earlier: "Totals") -> dict[str, float]:
        """Counts between two marks, by the names that reports use."""
        now, then = self.model_dump(), earlier.model_dump()
        difference: dict[str, float] = {"instructions": now["instructions"] - then["instructions"]}
        for name in _CLASSES:
            difference[f"{name}_instructions"] = now[name] - then[name]
        for name in ("read_bytes", "written_bytes", "l1_misses", "l2_misses", "l3_misses"):
            difference[name] = now[name] - then[name]
        return difference


@dataclass(frozen=True)
class CountsFolder:
    """The tier's files: QEMU's plugin, and for each core a folder that stands for the guest's root."""

    path: Path

    @property
    def plugin(self) -> Path:
        """The TCG plugin."""
        return self.path / "counts.so"

    @property
    def clock(self) -> Path:
        """What keeps the host's time and random bytes from the guest."""
        return self.path / "guest_clock.so"

    def root(self, core: str) -> Path:
        """What programs see of `/` on that core: the C library, and what Linux says about the processor."""
        return self.path / "roots" / core

    def is_current(self) -> bool:
        """Whether it was built from what there is now."""
        stamp = self.path / STAMP
        return stamp.is_file() and Built.load(stamp).inputs == counts_digest()


def counts_folder(root: Path | None = None) -> CountsFolder:
    """The tier's files below the folder of native runners (None: the default)."""
    return CountsFolder((root or default_root()) / "counts")


def counts_digest() -> str:
    """Digest of all that the tier's files are made from."""
    guest_files = {name: core.guest_files() for name, core in cores().items()}
    sources = [file_digest(native_runner.SOURCES / f"{name}.c") for name in ("counts", "guest_clock")]
    return digest_of([sources, guest_files, SYSTEM_LIBRARIES, EMPTY_FOLDERS, _ROOT_LAYOUT])


def missing(root: Path | None = None) -> str:
    """What the tier lacks on this machine, with the remedy; "" when nothing."""
    if shutil.which(EMULATOR) is None:
        return f"{EMULATOR} is missing: apt-get install --no-install-recommends qemu-user"
    if not counts_folder(root).is_current():
        return f"the counting plugin is not built, or for another version of phonefit; {_REMEDY}"
    state = runners_state(GUEST, root)
    return "" if state == "built" else f"the native runners for {GUEST} are {state}; {_REMEDY}"


class CountingDevice:
    """One emulated ARM64 core. It cannot limit a process's memory, only count it.

    Args:
        core: its name in cores.json.
        root: folder of native runners; None for the default.
        model: the core with other coefficients, for example fitted ones; None for those of cores.json.
        label: the name to identify as, which must be another where the coefficients are; None for the core's.
    """

    limits_memory = False

    def __init__(
        self,
        core: str = DEFAULT_CORE,
        root: Path | None = None,
        model: Core | None = None,
        label: str | None = None,
    ) -> None:
        self._name = core
        self._label = label or core
        self._core = model or core_named(core)
        self._root = root

    def info(self) -> DeviceInfo:
        """Identify the emulated core: the same on every machine with the same QEMU."""
        cycles = ", ".join(f"{name} {self._core.cycles[name]:.4g}" for name in TERMS)
        caches = ", ".join(f"{name} {each.bytes // 1024} KiB/{each.ways}" for name, each in self._core.caches.items())
        return DeviceInfo(
            kind="emulator",
            name=f"{self._label}, counted",
            architecture=GUEST,
            cores=1,
            ram_bytes=self._core.memory_bytes,
            operating_system="Linux",
            details={
                "core": self._core.summary,
                "clock": f"{self._core.frequency_hertz / 1e6:.0f} MHz",
                "caches": caches,
                "latency_model": f"cycles of one: {cycles}",
                "estimate": self._core.origin,
                "emulator": _emulator_version(),
            },
        )

    def prepare(self) -> None:
        """Check that everything is there.

        Raises:
            DeviceError: something is missing; the message says how to get it.
        """
        if lack := missing(self._root):
            raise DeviceError(f"emulator:counts: {lack}")

    def run(self, job: Job) -> RawRun:
        """Count one load and up to three inferences, the first of them as warm-up, in a fresh process.

        Raises:
            FileFormatError: the file is no model of the job's runtime.
            DeviceError: the job asks for what this tier cannot do, or it is not built.
            MeasurementError: the runner failed, took longer than the job's time-out, or left no result.
        """
        _refuse_impossible(job)
        self.prepare()
        require(job.model, job.runtime)
        runner = runner_for(job.runtime, GUEST, self._root)
        if runner is None:
            raise DeviceError(f"emulator:counts: there is no runner for {job.runtime}; {_REMEDY}")
        job = job.model_copy(
            update={"warmups": min(job.warmups, LARGEST_WARMUPS), "repeats": min(job.repeats, LARGEST_REPEATS)}
        )
        with tempfile.TemporaryDirectory(prefix="phonefit-counts-") as name:
            return self._run(job, runner, Path(name))

    def cleanup(self) -> None:
        """Nothing to undo: each run removes its own temporary files."""

    def _run(self, job: Job, runner: Path, place: Path) -> RawRun:
        # The guest sees the same names whatever the file is called: their lengths would show in the counts.
        (place / "model").symlink_to(job.model.resolve())
        inputs, outputs = self._files(job, runner, place)
        line = native_runner.command(
            runner,
            job,
            model="model",
            result="result",
            inputs=inputs,
            outputs=outputs,
            parent=os.getpid(),
            marks=True,
        )
        self._emulate(job, line, place, counts="counts")
        result = native_runner.parse_result((place / "result").read_text())
        if job.output_file is not None:
            arrays = native_runner.read_outputs(result, [place / name for name in outputs])
            named = {f"output_{number}": array for number, array in enumerate(arrays)}
            np.savez(job.output_file, allow_pickle=False, **named)
        return raw_run(result, parse_totals((place / "counts").read_text()), self._core)

    def _files(self, job: Job, runner: Path, place: Path) -> tuple[list[str], list[str]]:
        """Names in `place` of input files, written here, and of output files; none where the job does not ask."""
        if job.input_file is None and job.output_file is None:
            return [], []
        self._emulate(job, native_runner.describe_command(runner, model="model", result="description"), place)
        described = native_runner.parse_result((place / "description").read_text())
        inputs: list[str] = []
        if job.input_file is not None:
            for content in native_runner.input_bytes(described, job):
                inputs.append(f"input{len(inputs)}")
                (place / inputs[-1]).write_bytes(content)
        outputs = [f"output{number}" for number in range(len(described.outputs))] if job.output_file is not None else []
        return inputs, outputs

    def _emulate(self, job: Job, line: Sequence[str], place: Path, counts: str | None = None) -> None:
        root = counts_folder(self._root).root(self._name)
        emulator, environment = emulation(place, self._core, root, counts_folder(self._root), counts)
        try:
            done = subprocess.run(
                [*emulator, *line],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=job.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"{job.model.name}: no result on {job.runtime} after {job.timeout_seconds:g} s of emulation; "
                "ask for a longer time-out, or count a smaller model"
            ) from None
        if done.returncode != 0:
            raise native_runner.failure(job, done.returncode, done.stderr.decode(errors="replace"))


def emulation(
    place: Path, core: Core, root: Path | None, tier: CountsFolder, counts: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """The start of a command line that runs a program on an emulated core, and the environment to run it in.

    Nothing of this machine reaches the program: neither the environment, which would move its stack, nor the time.

    Args:
        place: the folder that the command will be run in; links to the tier's libraries are made there, under names
            that can be written in an option and in a list of paths.
        root: what stands for the guest's `/`; None for a program that needs none.
        counts: file in `place` that the counts go to; None to count nothing.
    """
    line = [shutil.which(EMULATOR) or EMULATOR, "-U", "LD_PRELOAD", "-seed", "0", "-cpu", core.processor]
    if root is not None:
        line += ["-L", str(root)]
    libraries = [tier.clock] if counts is None else [tier.clock, tier.plugin]
    for library in libraries:
        if not (place / library.name).is_symlink():
            (place / library.name).symlink_to(library.resolve())
    if counts is not None:
        caches = [f"{name}={each.bytes}/{each.ways}" for name, each in core.caches.items()]
        line += ["-plugin", ",".join([f"./{tier.plugin.name}", f"out={counts}", *caches])]
    return line, {"LD_PRELOAD": f"./{tier.clock.name}"}


def parse_totals(text: str) -> dict[int, Totals]:
    """What the plugin wrote: mark -> totals.

    Raises:
        MeasurementError: a line is none of the plugin's, or the marks of load and first inference are not there.
    """
    try:
        totals = [Totals.model_validate(json.loads(line)) for line in text.splitlines()]
    except ValueError as error:
        raise MeasurementError(f"unusable counts: {error}") from None
    found = {each.mark: each for each in totals}
    if not {_BEFORE_LOAD, _AFTER_LOAD, _BEFORE_FIRST} <= found.keys():
        raise MeasurementError(f"unusable counts: marks {sorted(found)}; the runner and the plugin do not fit together")
    return found


def raw_run(result: RunnerResult, totals: Mapping[int, Totals], core: Core) -> RawRun:
    """Counts of each inference, and the times that follow from them on that core.

    Raises:
        MeasurementError: there are other marks than the result has inferences.
    """
    warmups, repeats = len(result.warmup_ns), len(result.sample_ns)
    ends = [_AFTER_FIRST + place for place in range(warmups + repeats)]
    if sorted(mark for mark in totals if mark >= _AFTER_FIRST) != ends or not repeats:
        raise MeasurementError(f"unusable counts: {warmups + repeats} inferences, but marks {sorted(totals)}")
    starts = [_BEFORE_FIRST, *ends[:-1]]
    inferences = [totals[end].since(totals[start]) for start, end in zip(starts, ends, strict=True)]
    load = totals[_AFTER_LOAD].since(totals[_BEFORE_LOAD])
    times = [core.nanoseconds(counts) for counts in inferences]
    timed = inferences[warmups:]
    return native_runner.raw_run(result).model_copy(
        update={
            "load_nanoseconds": core.nanoseconds(load),
            "warmup_nanoseconds": tuple(times[:warmups]),
            "sample_nanoseconds": tuple(times[warmups:]),
            "baseline_bytes": totals[_BEFORE_LOAD].resident_bytes,
            "peak_bytes": totals[ends[-1]].peak_bytes,
            "counts": {name: tuple(counts[name] for counts in timed) for name in timed[0]},
            "load_counts": load,
            "latency_source": "modelled",
            "latency_note": core.origin,
            # the guest has no time of its own
            "timed_from_seconds": None,
            "timed_until_seconds": None,
            "memory_source": "counted",
            "versions": {**native_runner.raw_run(result).versions, "qemu": _emulator_version()},
        }
    )


def _refuse_impossible(job: Job) -> None:
    if job.threads > 1:
        raise DeviceError(
            f"emulator:counts counts one thread, but {job.threads} were asked for; "
            "set the threads to 1, or measure on another device"
        )
    if job.memory_limit_bytes is not None:
        raise DeviceError(
            f"emulator:counts cannot enforce a memory limit ({job.memory_limit_bytes:,} bytes asked); "
            "measure without a limit and hold the peak against it, or use the device emulator, which enforces one"
        )
    if job.duration_seconds is not None:
        raise DeviceError(
            f"emulator:counts has no time of its own to go on for {job.duration_seconds:g} s; leave the duration out: "
            "counts are the same in every inference"
        )
    if job.cpu_mask is not None and not job.cpu_mask & 1:
        raise DeviceError(f"emulator:counts has core 0 only, but the mask {job.cpu_mask:#x} leaves it out")


@functools.cache
def _emulator_version() -> str:
    """QEMU's version, for example "7.2.22"; "missing" when it is not installed."""
    program = shutil.which(EMULATOR)
    if program is None:
        return "missing"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("version ")[2].split(" ")[0] or "unknown"
