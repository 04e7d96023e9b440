"""What changes on a device while it works, and what speaks against measuring in it."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import JsonValue

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.parsers import CoreClock, ParseError, parse_cpufreq, parse_meminfo
from phonefit.device_bench.power_parsers import Battery, Thermal, parse_battery, parse_thermal
from phonefit.device_bench.report import Doubt
from phonefit.models.record import Frozen

_CLOCKS = "grep -H . /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_* 2>/dev/null"
_SEVERITIES = "none", "light", "moderate", "severe", "critical", "emergency", "shutdown"
_Parsed = TypeVar("_Parsed")


class Limits(Frozen):
    """Within which conditions a device is measured.

    Attributes:
        battery_celsius: Android itself begins to throttle between 37 and 45 °C of skin, near the battery's own.
        battery_percent: below it phones save power on their own.
        thermal_status: 0 is no throttling, 1 light.
    """

    battery_celsius: float = 38.0
    battery_percent: float = 15.0
    thermal_status: int = 0


class Conditions(Frozen):
    """State of a device at one moment. None or empty: the device does not tell."""

    battery: Battery | None
    thermal: Thermal | None
    clocks: tuple[CoreClock, ...]
    available_bytes: int | None
    load_average_1m: float | None
    power_saving: bool

    def as_values(self) -> dict[str, JsonValue]:
        """As a report keeps them: name -> value, the same names each time."""
        hottest = max((item.celsius for item in self.thermal.temperatures), default=None) if self.thermal else None
        return {
            "battery_percent": self.battery.level_percent if self.battery else None,
            "battery_celsius": self.battery.temperature_celsius if self.battery else None,
            "battery_status": self.battery.status if self.battery else None,
            "thermal_status": self.thermal.status if self.thermal else None,
            "hottest_celsius": hottest,
            "clocks_kilohertz": [clock.now_kilohertz for clock in self.clocks],
            "governors": [*sorted({clock.governor for clock in self.clocks if clock.governor})],
            "available_bytes": self.available_bytes,
            "load_average_1m": self.load_average_1m,
            "power_saving": self.power_saving,
        }


def read_conditions(adb: Adb) -> Conditions:
    """Conditions of a device now; on a Linux that is no Android without battery and heat.

    Raises:
        DeviceError, MeasurementError: it does not answer.
    """
    memory = _parsed(parse_meminfo, adb.shell(["cat", "/proc/meminfo"]).stdout)
    load = adb.shell(["cat", "/proc/loadavg"]).stdout.split()
    return Conditions(
        battery=_parsed(parse_battery, adb.shell(["dumpsys", "battery"]).stdout),
        thermal=_parsed(parse_thermal, adb.shell(["dumpsys", "thermalservice"]).stdout),
        clocks=parse_cpufreq(adb.shell(["sh", "-c", _CLOCKS]).stdout),
        available_bytes=memory.available_bytes if memory else None,
        load_average_1m=float(load[0]) if load else None,
        power_saving=adb.shell(["settings", "get", "global", "low_power"]).stdout.strip() == "1",
    )


def _parsed(parse: Callable[[str], _Parsed], text: str) -> _Parsed | None:
    # what a device does not tell is a fact about it, no error
    try:
        return parse(text)
    except ParseError:
        return None


def objections(conditions: Conditions, limits: Limits) -> tuple[Doubt, ...]:
    """What speaks against measuring now. Pure."""
    found = [*heat(conditions, limits)]
    battery = conditions.battery
    if battery and battery.level_percent < limits.battery_percent:
        found.append(
            Doubt(
                reason=f"the battery is at {battery.level_percent:g} %, below {limits.battery_percent:g} %",
                remedy="charge it",
            )
        )
    if conditions.power_saving:
        found.append(Doubt(reason="power saving is on, which slows the processor", remedy="switch power saving off"))
    if battery and battery.faked:
        found.append(Doubt(reason="the battery's state is faked", remedy="adb shell dumpsys battery reset"))
    return tuple(found)


def heat(conditions: Conditions, limits: Limits) -> tuple[Doubt, ...]:
    """The objections that pass by waiting. Pure."""
    found = []
    status = conditions.thermal.status if conditions.thermal else None
    if status is not None and status > limits.thermal_status:
        name = _SEVERITIES[min(status, len(_SEVERITIES) - 1)]
        found.append(Doubt(reason=f"it is throttling ({name}, status {status})", remedy="let it cool down"))
    celsius = conditions.battery.temperature_celsius if conditions.battery else None
    if celsius is not None and celsius > limits.battery_celsius:
        reason = f"the battery has {celsius:g} °C, more than {limits.battery_celsius:g} °C"
        found.append(Doubt(reason=reason, remedy="let it cool down; take off its cover, keep it out of the sun"))
    return tuple(found)


def sentence(warnings: tuple[Doubt, ...]) -> str:
    """Reasons and remedies in one line."""
    return "; ".join(f"{warning.reason}: {warning.remedy}" for warning in warnings)
