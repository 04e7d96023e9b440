"""Measure the energy of a run on a device that adb reaches: an idle baseline, then the run, power sampled in both.

The best source that the device has is taken: its power rails, else its battery's gauge. What it lacks is a fact about
it, so the run itself goes on without an energy figure.
"""

import contextlib
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_errors import AdbCommandError
from phonefit.device_bench.device import DeviceError, EnergyEstimate, Job, RawRun
from phonefit.device_bench.energy import EnergyUnavailableError, GaugeSample, RailSample, refuse_charging
from phonefit.device_bench.energy_run import gauge_energy, parse_gauge_log, rail_energy
from phonefit.device_bench.parsers import ParseError, integer
from phonefit.device_bench.power_parsers import (
    Battery,
    Supply,
    parse_battery,
    parse_battery_capacity,
    parse_supplies,
)
from phonefit.device_bench.power_sampling import (
    TRACES,
    RailSource,
    ServiceSource,
    Source,
    SysfsSource,
    await_begin,
    await_end,
    gauge_sampler,
    list_supplies,
    look_at_rails,
    rail_sampler,
    service_current,
)
from phonefit.device_bench.rails import rail_names, rail_samples
from phonefit.device_bench.shell_device import ShellDevice

# Length of the idle baseline, and of the timed inferences after it, unless the job names one.
ENERGY_SECONDS = 30.0
_PROGRAM_SECONDS = 60.0

Execute = Callable[[Job], RawRun]


def measure_energy(shell: ShellDevice, job: Job, execute: Execute) -> RawRun:
    """Run a job with power sampled; `energy` of the result, or `energy_note` when there is no figure.

    The run goes on for the job's duration, or for 30 s, after an idle baseline of that length.

    Args:
        shell: the device, started.
        execute: runs a job there.

    Raises:
        DeviceError, MeasurementError: as `execute`; the device went away.
    """
    try:
        source = find_source(shell)
    except EnergyUnavailableError as error:
        return execute(job).model_copy(update={"energy_note": str(error)})
    seconds = job.duration_seconds or ENERGY_SECONDS
    # inferences as many as fill the time: a fixed number could take longer than the baseline
    asked = job.model_copy(update={"duration_seconds": seconds, "timeout_seconds": job.timeout_seconds + seconds})
    with _sampling(shell, source, "idle") as idle_files:
        shell.adb.shell(["sleep", f"{seconds:g}"], timeout_seconds=seconds + _PROGRAM_SECONDS, check=True)
    with _sampling(shell, source, "run") as run_files:
        run = execute(asked)
    try:
        found = _estimates(shell, source, idle_files, run_files, run)
    except EnergyUnavailableError as error:
        return run.model_copy(update={"energy_note": str(error)})
    return run.model_copy(update={"energy": found})


def find_source(shell: ShellDevice) -> Source:
    """The best source of energy figures that the device has.

    Raises:
        EnergyUnavailableError: it has none that can be used now, and why.
    """
    try:
        return _rails(shell)
    except EnergyUnavailableError as error:
        without_rails = str(error)
    adb = shell.adb
    supply = _battery_of(adb)
    readable = supply is not None and supply.current_raw is not None and supply.microvolts is not None
    battery = _android_battery(adb)
    if not readable and integer(adb.shell(service_current()).stdout) is None:
        raise EnergyUnavailableError(
            f"no power rails ({without_rails}); no gauge: neither current_now and voltage_now of a battery in "
            "/sys/class/power_supply nor `cmd battery get current_now` can be read"
        )
    try:
        refuse_charging(battery, supply)
    except EnergyUnavailableError as error:
        raise EnergyUnavailableError(f"no power rails ({without_rails}); the battery's gauge: {error}") from None
    return SysfsSource(folder=supply.folder) if readable and supply is not None else ServiceSource()


def battery_capacity(adb: Adb) -> dict[str, JsonValue]:
    """The battery's capacity and where it is from, as conditions of a report; None where nothing tells it."""
    supply = _battery_of(adb)
    if supply is not None and supply.design_microampere_hours:
        return _capacity(supply.design_microampere_hours, f"charge_full_design of {supply.folder}")
    known = parse_battery_capacity(adb.shell(["dumpsys", "batterystats"], timeout_seconds=_PROGRAM_SECONDS).stdout)
    return _capacity(known, "dumpsys batterystats" if known is not None else "")


def _capacity(microampere_hours: int | None, source: str) -> dict[str, JsonValue]:
    return {"battery_capacity_microampere_hours": microampere_hours, "battery_capacity_source": source}


def _battery_of(adb: Adb) -> Supply | None:
    """The phone's battery in the kernel's files: one that tells its current, else any."""
    batteries = [one for one in parse_supplies(adb.shell(list_supplies()).stdout) if one.kind.lower() == "battery"]
    return max(batteries, key=lambda one: (one.current_raw is not None, one.microvolts is not None), default=None)


def _android_battery(adb: Adb) -> Battery | None:
    try:
        return parse_battery(adb.shell(["dumpsys", "battery"]).stdout)
    except ParseError:
        return None


def _rails(shell: ShellDevice) -> RailSource:
    if shell.adb.shell(["sh", "-c", "command -v perfetto"]).exit_code != 0:
        raise EnergyUnavailableError("there is no perfetto on the device")
    trace = _trace_path(shell, "look")
    shell.claim(trace)
    made = shell.adb.shell(look_at_rails(trace), timeout_seconds=_PROGRAM_SECONDS)
    if made.exit_code != 0:
        said = (made.stderr.strip() or made.stdout.strip() or "it said nothing")[-200:]
        raise EnergyUnavailableError(f"perfetto ended with exit status {made.exit_code}: {said}")
    names = rail_names(_fetch_trace(shell, trace))
    if not names:
        raise EnergyUnavailableError("its power rails are not measured")
    return RailSource(rails=tuple(names))


class _Files:
    """Where a sampler of one stretch of time writes."""

    def __init__(self, shell: ShellDevice, name: str) -> None:
        self.flag, self.log = (posixpath.join(shell.folder, f"power_{name}.{end}") for end in ("on", "log"))
        self.trace = _trace_path(shell, name)


@contextlib.contextmanager
def _sampling(shell: ShellDevice, source: Source, name: str) -> Iterator[_Files]:
    """Sample power while the block runs; the sampler has ended when it is left.

    Where the device is gone by then, the next `start` on it ends the sampler, by what the journal says.
    """
    files = _Files(shell, name)
    if source.kind == "rail":
        shell.claim(files.flag, files.log, files.trace)
        line, begun = rail_sampler(files.flag, files.log, files.trace), await_begin(files.trace, empty=True)
    else:
        shell.claim(files.flag, files.log)
        line, begun = gauge_sampler(source, files.flag, files.log), await_begin(files.log)
    try:
        shell.adb.shell(line, check=True)
        shell.adb.shell(begun, timeout_seconds=_PROGRAM_SECONDS)
        yield files
    except BaseException:
        with contextlib.suppress(DeviceError):
            shell.adb.shell(["rm", "-f", files.flag])
        raise
    shell.adb.shell(["rm", "-f", files.flag], check=True)
    shell.adb.shell(await_end(files.log), timeout_seconds=_PROGRAM_SECONDS)


def _estimates(
    shell: ShellDevice, source: Source, idle: _Files, during: _Files, run: RawRun
) -> dict[str, EnergyEstimate]:
    if source.kind == "rail":
        return rail_energy(_rail_readings(shell, source, idle), _rail_readings(shell, source, during), run, source.name)
    # the cable may have been put in meanwhile
    refuse_charging(_android_battery(shell.adb), _battery_of(shell.adb))
    return gauge_energy(_gauge_readings(shell, idle), _gauge_readings(shell, during), run, source.name)


def _rail_readings(shell: ShellDevice, source: RailSource, files: _Files) -> tuple[RailSample, ...]:
    return rail_samples(_fetch_trace(shell, files.trace), source.rails)


def _gauge_readings(shell: ShellDevice, files: _Files) -> tuple[GaugeSample, ...]:
    return parse_gauge_log(shell.adb.shell(["cat", files.log], timeout_seconds=_PROGRAM_SECONDS).stdout)


def _trace_path(shell: ShellDevice, name: str) -> str:
    return posixpath.join(TRACES, f"{posixpath.basename(shell.folder)}_{name}.perfetto-trace")


def _fetch_trace(shell: ShellDevice, trace: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="phonefit-trace-") as folder:
        target = Path(folder) / "trace"
        try:
            shell.adb.pull(trace, target)
        except AdbCommandError as error:
            raise EnergyUnavailableError(f"the trace of the power rails cannot be fetched: {error}") from None
        return target.read_bytes()
