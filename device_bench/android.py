"""AndroidDevice: a phone, or any other device that adb reaches, as `adb:SERIAL`; and what is attached now."""

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_errors import state_remedy
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.conditions import Limits, heat, objections, read_conditions, sentence
from phonefit.device_bench.device import DeviceError, DeviceInfo, Job, RawRun
from phonefit.device_bench.device_lock import file_of, hold_device
from phonefit.device_bench.energy_meter import battery_capacity, measure_energy
from phonefit.device_bench.host_facts import parse_cpuinfo
from phonefit.device_bench.journal import Journal
from phonefit.device_bench.native_runner import raw_run, runner_for
from phonefit.device_bench.parsers import Identity, ParseError, parse_identity, parse_meminfo
from phonefit.device_bench.reference import REFERENCE_REPEATS
from phonefit.device_bench.shell_device import ShellDevice, require_result
from phonefit.models.artifact import Runtime

_COOL_DOWN_SECONDS, _COOL_DOWN_STEP_SECONDS = 300.0, 5.0
# The mode came with Android 11.
_FIXED_PERFORMANCE_SDK = 30
_STAY_AWAKE = "stay_on_while_plugged_in"
_log = logging.getLogger(__name__)

# Runtime and architecture -> the native runner's program, in a folder that is complete as it is; None: not built.
FindRunner = Callable[[Runtime, str], Path | None]


class AndroidDevice:
    """A device by its serial; one process at a time.

    Args:
        serial: None is the only one attached.
        server: the adb server; None is the usual one.
        limits: of the conditions to measure in.
        state: folder of locks and journals; None is `device_lock.state_folder()`.
        find_runner: the native runner for a runtime and an architecture.
        cool_down_seconds: how long a device that is too warm is waited for.
        wait: sleeps; replaced in tests.
    """

    limits_memory = False

    def __init__(
        self,
        serial: str | None = None,
        *,
        server: AdbServer | None = None,
        limits: Limits | None = None,
        state: Path | None = None,
        find_runner: FindRunner = runner_for,
        cool_down_seconds: float = _COOL_DOWN_SECONDS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._asked = serial
        self._server = server or AdbServer()
        self._limits = limits or Limits()
        self._state = state
        self._find_runner = find_runner
        self._cool_down_seconds = cool_down_seconds
        self._wait = wait
        self._held = contextlib.ExitStack()
        self._adb: Adb | None = None
        self._info: DeviceInfo | None = None
        self._shell: ShellDevice | None = None
        self._fixed_performance = False
        self._ready = False

    def info(self) -> DeviceInfo:
        """Identify the device.

        Raises:
            DeviceError: it cannot be reached; several are attached and none was named.
        """
        if self._info is None:
            self._info = read_info(self._open())
        return self._info

    def prepare(self) -> None:
        """Take the device, undo what an interrupted run left, wait until it is fit, keep it awake, steady its clocks.

        Raises:
            DeviceError: it cannot be reached, another process has it, or its conditions forbid measuring.
        """
        if self._ready:
            return
        self.cleanup()  # what is left of an earlier call that failed
        adb = self._open()
        self._held.enter_context(hold_device(adb.serial, self._state))
        shell = self._shell = ShellDevice(adb, Journal(file_of(adb.serial, ".journal.json", self._state)))
        # what makes the device ready is undone by cleanup, also when it is only half done
        shell.start()
        info = self.info()
        if info.operating_system.startswith("Android"):
            self._wait_until_fit(adb)
            self._keep_awake(shell)
            self._fix_performance(shell, int(info.details.get("sdk", "0")))
        self._ready = True

    def run(self, job: Job) -> RawRun:
        """Run one job in a fresh process on the device, by the native runner for it.

        Raises:
            FileFormatError: the file is no model of the job's runtime.
            DeviceError: there is no native runner for the device, or it cannot do what the job asks.
            MeasurementError: the run failed, took too long, or the device went away.
        """
        shell = self._started()
        info = self.info()
        self._refuse_impossible(job, info)
        program = self._find_runner(job.runtime, runner_architecture(info))
        if program is None:
            raise DeviceError(self._no_runner(job, info))
        installed = shell.install(program.parent.parent)
        name = f"{installed}/bin/{program.name}"
        before = self._conditions()

        def execute(asked: Job) -> RawRun:
            return raw_run(require_result(asked, shell.execute(asked, name, reference=REFERENCE_REPEATS)))

        if job.energy:
            before |= battery_capacity(shell.adb)
            run = measure_energy(shell, job, execute)
        else:
            run = execute(job)
        return run.model_copy(update={"conditions_before": before, "conditions_after": self._conditions()})

    def cleanup(self) -> None:
        """Remove what was put on the device, restore what was changed, let go of it. Safe to call twice."""
        shell, self._shell, self._ready = self._shell, None, False
        try:
            if shell is not None:
                shell.finish()
        finally:
            self._held.close()

    def _started(self) -> ShellDevice:
        if self._shell is None:
            raise DeviceError("the device is not prepared: call prepare() before run()")
        return self._shell

    def _open(self) -> Adb:
        if self._adb is None:
            self._adb = Adb(self._server.choose(self._asked), self._server)
        return self._adb

    def _conditions(self) -> dict[str, JsonValue]:
        return {**read_conditions(self._open()).as_values(), "fixed_performance": self._fixed_performance}

    def _wait_until_fit(self, adb: Adb) -> None:
        waited = 0.0
        conditions = read_conditions(adb)
        while heat(conditions, self._limits) and waited < self._cool_down_seconds:
            self._wait(_COOL_DOWN_STEP_SECONDS)
            waited += _COOL_DOWN_STEP_SECONDS
            conditions = read_conditions(adb)
        found = objections(conditions, self._limits)
        if found:
            after = f" after waiting {waited:g} s" if waited else ""
            raise DeviceError(f"{adb.serial} is not fit for measuring{after}: {sentence(found)}")

    def _keep_awake(self, shell: ShellDevice) -> None:
        before = shell.adb.shell(["settings", "get", "global", _STAY_AWAKE]).stdout.strip()
        restore = (
            ["delete", "global", _STAY_AWAKE] if before in ("", "null") else ["put", "global", _STAY_AWAKE, before]
        )
        if not shell.change("staying awake", ["svc", "power", "stayon", "true"], ["settings", *restore]):
            _log.warning("%s does not stay awake: set its screen time-out to the longest", shell.adb.serial)

    def _fix_performance(self, shell: ShellDevice, sdk: int) -> None:
        if sdk < _FIXED_PERFORMANCE_SDK:
            return
        command = ["cmd", "power", "set-fixed-performance-mode-enabled"]
        # phones without it refuse; that is recorded with the conditions
        self._fixed_performance = shell.change("fixed performance", [*command, "true"], [*command, "false"])

    def _refuse_impossible(self, job: Job, info: DeviceInfo) -> None:
        if job.memory_limit_bytes is not None:
            raise DeviceError(
                f"{info.name} cannot enforce a memory limit ({job.memory_limit_bytes:,} bytes asked); measure without "
                "one and hold the peak against it, or use the emulated phone (emulator), which enforces one"
            )
        if job.threads > info.cores:
            raise DeviceError(f"{job.threads} threads asked, but {info.name} has {info.cores} cores")
        if job.cpu_mask is not None and job.cpu_mask >> info.cores:
            raise DeviceError(f"CPU mask {job.cpu_mask:#x} names cores that {info.name} lacks: it has {info.cores}")

    def _no_runner(self, job: Job, info: DeviceInfo) -> str:
        if info.operating_system.startswith("Android"):
            return (
                f"there is no native {job.runtime} runner for {info.name} ({info.architecture}, "
                f"{info.operating_system}); "
                "the app of android_demo/ measures there: phonefit deploy RUN, then --device app"
            )
        return f"the native {job.runtime} runner for {info.architecture} is not built: make native, then try again"


@dataclass(frozen=True)
class AttachedDevice:
    """One line of `phonefit devices`.

    Attributes:
        info: None when the device does not answer.
        trusted: whether it can be measured on now.
        remarks: why not; empty when it is trusted.
    """

    serial: str
    state: str
    info: DeviceInfo | None
    trusted: bool
    remarks: str

    @property
    def name(self) -> str:
        """The name that `--device` takes."""
        return f"adb:{self.serial}"


def attached(server: AdbServer | None = None, limits: Limits | None = None) -> list[AttachedDevice]:
    """What adb reaches now, what each is and whether it can be trusted. One that does not answer is listed as such.

    Raises:
        DeviceError: there is no adb program, or its server does not start.
    """
    server = server or AdbServer()
    return [_look_at(server, item.serial, item.state, limits or Limits()) for item in server.devices()]


def _look_at(server: AdbServer, serial: str, state: str, limits: Limits) -> AttachedDevice:
    if state != "device":
        return AttachedDevice(serial, state, None, False, state_remedy(state))
    adb = Adb(serial, server)
    try:
        info, conditions = read_info(adb), read_conditions(adb)
    except DeviceError as error:
        return AttachedDevice(serial, state, None, False, str(error))
    found = objections(conditions, limits)
    return AttachedDevice(serial, state, info, not found, sentence(found))


def read_info(adb: Adb) -> DeviceInfo:
    """Identity of a device: Android's properties, or a plain Linux's /proc.

    Raises:
        DeviceError, MeasurementError: it does not answer.
    """
    memory = parse_meminfo(adb.shell(["cat", "/proc/meminfo"], check=True).stdout)
    cores = _cores(adb.shell(["cat", "/sys/devices/system/cpu/possible"]).stdout)
    machine, release = (adb.shell(["uname", option]).stdout.strip() for option in ("-m", "-r"))
    details = {"serial": adb.serial, "kernel": release}
    try:
        identity = parse_identity(adb.shell(["getprop"]).stdout)
    except ParseError:
        name = parse_cpuinfo(adb.shell(["cat", "/proc/cpuinfo"]).stdout) or machine
        return DeviceInfo(
            kind="adb",
            name=name,
            architecture=machine,
            cores=cores,
            ram_bytes=memory.total_bytes,
            operating_system="Linux",
            details=details,
        )
    return DeviceInfo(
        kind="adb",
        name=_phone_name(identity),
        architecture=identity.abi or machine,
        cores=cores,
        ram_bytes=memory.total_bytes,
        operating_system=f"Android {identity.android_version}",
        details={**details, "soc": identity.soc, "sdk": str(identity.sdk or 0), "build": identity.fingerprint},
    )


def runner_architecture(info: DeviceInfo) -> str:
    """Which folder of native runners a device needs: Android's C library is not that of other Linux systems."""
    return f"android-{info.architecture}" if info.operating_system.startswith("Android") else info.architecture


def _phone_name(identity: Identity) -> str:
    model = identity.model or "unknown phone"
    maker = identity.manufacturer
    whole = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    return f"{whole.strip()} ({identity.soc})" if identity.soc else whole.strip()


def _cores(text: str) -> int:
    """Number of cores in a list such as "0-7" or "0-3,6"; 1 when it cannot be read."""
    count = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += (int(last) if last.isdigit() else int(first)) - int(first) + 1
    return max(count, 1)
