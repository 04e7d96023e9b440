"""EmulatedPhone: the emulated ARM64 phone as a device. Started when it is first needed, and left running.

It is reached through the same adb code as a phone. What it adds: a memory limit that the kernel enforces on the
runner, and times that count instructions (1 ns each) instead of depending on what else this machine does.
"""

import re
from contextlib import ExitStack
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.device import DeviceError, DeviceInfo, Job, RawRun
from phonefit.device_bench.device_lock import file_of, hold_device
from phonefit.device_bench.emulator.guest import MemoryUse, limited, memory_use, processor_of
from phonefit.device_bench.emulator.image import default_cache
from phonefit.device_bench.emulator.machine import Machine, MachineState, adb_of, parse_options
from phonefit.device_bench.journal import Journal
from phonefit.device_bench.native_runner import raw_run, runner_for, runners_state
from phonefit.device_bench.runtimes.detect import require
from phonefit.device_bench.shell_device import ShellDevice, require_result
from phonefit.models.artifact import Runtime

ARCHITECTURE = "aarch64"
CORES = 1
# Times that follow from instructions repeat within a thousandth, so more inferences than these only cost time.
LARGEST_WARMUPS, LARGEST_REPEATS = 1, 3
# Runners stay there between measurements, for as long as the phone runs.
_REMEDY = "build them with: make emulator"
_RUNNERS = "/data/local/tmp/phonefit-runners"


class EmulatedPhone:
    """The emulated phone with these options, for example "ram=4G"; "" is the default of 6 GiB.

    `cleanup` leaves it running, so that the next measurement need not wait for it; `stop` ends it.

    Args:
        options: as `parse_options` reads them.
        cache: folder with its image and state; None is `default_cache()`.
        runners: folder with the native runners, one folder an architecture; None is the usual one.

    Raises:
        DeviceError: impossible options.
    """

    limits_memory = True

    def __init__(self, options: str = "", cache: Path | None = None, runners: Path | None = None) -> None:
        self.machine = Machine(cache or default_cache(), parse_options(options))
        self._runners = runners
        self._held = ExitStack()
        self._shell: ShellDevice | None = None
        self._programs: dict[Runtime, str] = {}

    def info(self) -> DeviceInfo:
        """Identify it, as it says itself; starts it when it does not run.

        Raises:
            DeviceError: it cannot be started.
        """
        state = self.machine.start()
        adb = adb_of(state)
        cpuinfo = adb.shell(["cat", "/proc/cpuinfo"], check=True).stdout
        kernel = adb.shell(["uname", "-r"], check=True).stdout.strip()
        return DeviceInfo(
            kind="emulator",
            name=f"emulated {processor_of(cpuinfo) or 'Arm core'}",
            architecture=ARCHITECTURE,
            cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)),
            ram_bytes=_memory(adb, "MemTotal"),
            operating_system="Linux",
            details={"kernel": kernel, "emulator": f"QEMU {state.emulator_version}", "clock": "1 ns an instruction"},
        )

    def prepare(self) -> None:
        """Start it or find it running, and hold it until `cleanup`.

        Raises:
            DeviceError: it cannot be started, or another phonefit process works on it.
        """
        if self._shell is not None:
            return
        state = self.machine.start()
        with ExitStack() as stack:
            stack.enter_context(hold_device(state.serial, self.machine.folder))
            shell = ShellDevice(adb_of(state), Journal(file_of(state.serial, ".journal", self.machine.folder)))
            shell.start()
            self._held = stack.pop_all()
        self._shell = shell

    def run(self, job: Job) -> RawRun:
        """Load and run a model in a fresh process, under the job's memory limit; at most 1 warm-up and 3 repeats.

        Its peak memory is told twice: VmHWM of the process, and the kernel's count for the process with the pages of
        the files that it read (`cgroup_peak_bytes`), which is what the limit holds. A process that the limit ends is a
        result, not an error: a run that is `out_of_memory`.

        A load includes reading the file from the phone's disk, for which it waits in this machine's time: that part of
        it, and of an inference that has to read pages again under a tight limit, does not repeat.

        Raises:
            FileFormatError: the file is no model of the job's runtime.
            DeviceError: more threads or other cores than there are, or there is no runner.
            MeasurementError: it crashed, took too long, or left no result.
        """
        _refuse_impossible(job)
        require(job.model, job.runtime)
        self.prepare()
        assert self._shell is not None  # prepare made it
        job = job.model_copy(
            update={"warmups": min(job.warmups, LARGEST_WARMUPS), "repeats": min(job.repeats, LARGEST_REPEATS)}
        )
        program = self._install(job)
        before = self._conditions()
        execution = self._shell.execute(job, program, lambda command: limited(command, job.memory_limit_bytes))
        use, said = memory_use(execution.stdout)
        if use.out_of_memory:
            run = _out_of_memory(use)
        else:
            run = raw_run(require_result(job, execution.model_copy(update={"stdout": said})))
        return run.model_copy(
            update={
                "latency_source": "modelled",
                "latency_note": "1 ns for each instruction of the processor, whatever its kind; no caches are modelled",
                "cgroup_peak_bytes": use.peak_bytes,
                "conditions_before": {**before, "memory_limit_hits": 0},
                "conditions_after": {**self._conditions(), "memory_limit_hits": use.limit_hits},
            }
        )

    def cleanup(self) -> None:
        """Remove what was put there, except the runners, and let go of it; it goes on running."""
        if self._shell is not None:
            self._shell.finish()
        self._forget()

    def _forget(self) -> None:
        self._shell = None
        self._programs.clear()
        self._held.close()

    def stop(self) -> bool:
        """End it; False when it did not run."""
        self._forget()
        return self.machine.stop()

    def find(self) -> MachineState | None:
        """The running phone; None when it does not run. Starts nothing."""
        return self.machine.find()

    def _install(self, job: Job) -> str:
        """The job's runner on the phone."""
        assert self._shell is not None  # called by run
        if job.runtime not in self._programs:
            runner = runner_for(job.runtime, ARCHITECTURE, self._runners)
            if runner is None:
                raise DeviceError(f"there is no {ARCHITECTURE} runner for {job.runtime}; {_REMEDY}")
            kept = Journal(self.machine.folder / "runners.journal")
            place = ShellDevice(self._shell.adb, kept, _RUNNERS).install(runner.parents[1])
            self._programs[job.runtime] = f"{place}/bin/{runner.name}"
        return self._programs[job.runtime]

    def _conditions(self) -> dict[str, JsonValue]:
        assert self._shell is not None  # called by run
        return {"available_bytes": _memory(self._shell.adb, "MemAvailable")}


def _refuse_impossible(job: Job) -> None:
    if job.threads > CORES:
        raise DeviceError(f"{job.threads} threads asked, but the emulated phone has {CORES} core")
    if job.cpu_mask is not None and not job.cpu_mask & 1:
        raise DeviceError(f"CPU mask {job.cpu_mask:x} asked, but the emulated phone has core 0 only")


def _out_of_memory(use: MemoryUse) -> RawRun:
    return RawRun(
        load_nanoseconds=0,
        warmup_nanoseconds=(),
        sample_nanoseconds=(),
        baseline_bytes=0,
        peak_bytes=use.peak_bytes,
        out_of_memory=True,
    )


def missing(cache: Path | None = None) -> str:
    """What the emulated phone lacks on this machine, with the remedy; "" when nothing."""
    try:
        Machine(cache or default_cache()).check()
    except DeviceError as error:
        return str(error)
    state = runners_state(ARCHITECTURE)
    return "" if state == "built" else f"the native runners for {ARCHITECTURE} are {state}; {_REMEDY}"


def _memory(adb: Adb, name: str) -> int:
    text = adb.shell(["cat", "/proc/meminfo"], check=True).stdout
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise DeviceError(f"the emulated phone's /proc/meminfo has no {name}: {text[:200]!r}")
    return int(found[1]) * 1024
