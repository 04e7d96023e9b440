"""What a phone tells of its battery and its heat -> frozen records. Pure, as `parsers` is."""

import re
from collections.abc import Iterator

from phonefit.device_bench.parsers import ParseError, integer, plain_text
from phonefit.models.record import Frozen


class Battery(Frozen):
    """`dumpsys battery`.

    Attributes:
        status: "unknown", "charging", "discharging", "not charging" or "full" (BatteryManager.BATTERY_STATUS_*).
        plugged: sources of power that are connected: "AC", "USB", "Wireless", "Dock".
        charge_microampere_hours: what is in the battery now; None where the gauge does not count.
        faked: `dumpsys battery set` or `unplug` is in force, so the state is not the real one.
    """

    level_percent: float
    status: str
    plugged: tuple[str, ...]
    temperature_celsius: float | None
    volts: float | None
    charge_microampere_hours: int | None
    faked: bool

    @property
    def charging(self) -> bool:
        """Whether current flows in or may flow in: a gauge measures nothing useful then."""
        return bool(self.plugged) or self.status in ("charging", "full")


class PowerSupply(Frozen):
    """/sys/class/power_supply/battery/uevent, as the kernel prints it; the sign of the current differs by device.

    Attributes:
        current_raw: CURRENT_NOW: microamperes by the kernel's rules, milliamperes on some devices.
    """

    status: str
    current_raw: int | None
    microvolts: int | None
    charge_microampere_hours: int | None
    full_microampere_hours: int | None
    design_microampere_hours: int | None
    temperature_celsius: float | None


class Supply(Frozen):
    """One folder of /sys/class/power_supply; None for what the shell may not read.

    Attributes:
        kind: "Battery", "USB", "Mains", "Wireless".
        current_raw: as in `PowerSupply`.
    """

    folder: str
    kind: str
    status: str
    current_raw: int | None
    microvolts: int | None
    design_microampere_hours: int | None


class Temperature(Frozen):
    """One sensor. `status` is the throttling severity, 0 (none) to 6 (shutdown)."""

    name: str
    kind: str
    celsius: float
    status: int


class Thermal(Frozen):
    """`dumpsys thermalservice`: severity of throttling (None before Android 10) and the sensors."""

    status: int | None
    temperatures: tuple[Temperature, ...]


# BatteryManager.BATTERY_STATUS_UNKNOWN … FULL
_BATTERY_STATUS = {1: "unknown", 2: "charging", 3: "discharging", 4: "not charging", 5: "full"}


def parse_battery(text: str) -> Battery:
    """`dumpsys battery`.

    Raises:
        ParseError: there is no battery service, or it does not tell the level.
    """
    fields: dict[str, str] = {}
    for line in plain_text(text).splitlines():
        name, colon, value = line.partition(":")
        # newer versions print a log of events below, whose lines must not replace the fields
        if colon and line.startswith("  "):
            fields.setdefault(name.strip(), value.strip())
    level, scale = integer(fields.get("level")), integer(fields.get("scale")) or 100
    if level is None:
        raise ParseError("dumpsys battery", text)
    tenths, millivolts = integer(fields.get("temperature")), integer(fields.get("voltage"))
    charge = integer(fields.get("Charge counter"))
    return Battery(
        level_percent=100 * level / scale,
        status=_BATTERY_STATUS.get(integer(fields.get("status")) or 1, "unknown"),
        plugged=tuple(name for name in ("AC", "USB", "Wireless", "Dock") if fields.get(f"{name} powered") == "true"),
        temperature_celsius=None if tenths is None else tenths / 10,
        volts=volts_of(millivolts),
        # a gauge that does not count reports 0, or a negative number
        charge_microampere_hours=charge if charge is not None and charge > 0 else None,
        faked="UPDATES STOPPED" in text,
    )


def volts_of(millivolts: int | None) -> float | None:
    """Volts from mV, from µV on devices that break the rule, or from V on older ones; None for nonsense."""
    if millivolts is None or millivolts <= 0:
        return None
    if millivolts < 100:
        return float(millivolts)
    return millivolts / (1e6 if millivolts > 100_000 else 1e3)


def parse_power_supply(text: str) -> PowerSupply:
    """The `uevent` file of a battery in /sys/class/power_supply.

    Raises:
        ParseError: it is no such file; on many phones the shell may not read it.
    """
    found = dict(re.findall(r"^POWER_SUPPLY_(\w+)=(.*)$", plain_text(text), re.M))
    if not found:
        raise ParseError("/sys/class/power_supply/battery/uevent", text)
    tenths = integer(found.get("TEMP"))
    return PowerSupply(
        status=found.get("STATUS", "Unknown").lower(),
        current_raw=integer(found.get("CURRENT_NOW")),
        microvolts=integer(found.get("VOLTAGE_NOW")),
        charge_microampere_hours=integer(found.get("CHARGE_COUNTER")) or integer(found.get("CHARGE_NOW")),
        full_microampere_hours=integer(found.get("CHARGE_FULL")),
        design_microampere_hours=integer(found.get("CHARGE_FULL_DESIGN")),
        temperature_celsius=None if tenths is None else tenths / 10,
    )


def parse_supplies(text: str) -> tuple[Supply, ...]:
    """The power supplies in what `power_sampling.list_supplies` prints: "supply FOLDER", then lines "NAME VALUE"."""
    found: list[dict[str, str]] = []
    for line in plain_text(text).splitlines():
        name, _, value = line.partition(" ")
        if name == "supply":
            found.append({})
        if found:
            found[-1][name] = value.strip()
    return tuple(
        Supply(
            folder=fields["supply"],
            kind=fields.get("type", ""),
            status=fields.get("status", "unknown").lower(),
            current_raw=integer(fields.get("current_now")),
            microvolts=integer(fields.get("voltage_now")),
            design_microampere_hours=integer(fields.get("charge_full_design")),
        )
        for fields in found
    )


def parse_battery_capacity(text: str) -> int | None:
    """Capacity in µAh from `dumpsys batterystats`: what it has learned, else what it estimates; None if unknown."""
    learned = re.search(r"^\s*(?:Last learned|Learned) battery capacity: (\d+) mAh", plain_text(text), re.M)
    rated = re.search(r"^\s*(?:Estimated battery capacity|Capacity): (\d+)", plain_text(text), re.M)
    found = next((int(match[1]) for match in (learned, rated) if match and int(match[1]) > 0), None)
    return None if found is None else found * 1000


# android.os.Temperature.TYPE_*; 6 to 8 are no temperatures but limits of the battery's current
_SENSORS = {0: "CPU", 1: "GPU", 2: "battery", 3: "skin", 4: "USB port", 5: "power amplifier", 9: "NPU", 10: "TPU"}


def parse_thermal(text: str) -> Thermal:
    """`dumpsys thermalservice`: the hardware's current values, or the cached ones where it gives none.

    Raises:
        ParseError: the service is missing (before Android 10) or its hardware layer is not ready.
    """
    plain = plain_text(text)
    status = re.search(r"^Thermal Status: (\d+)", plain, re.M)
    cached, _, current = plain.partition("Current temperatures from HAL:")
    # thresholds and cooling devices follow
    current = re.split(r"^Current cooling devices|^Temperature static thresholds", current, flags=re.M)[0]
    temperatures = tuple(_temperatures(current)) or tuple(_temperatures(cached))
    if status is None and not temperatures:
        raise ParseError("dumpsys thermalservice", text)
    return Thermal(status=None if status is None else int(status[1]), temperatures=temperatures)


def _temperatures(text: str) -> Iterator[Temperature]:
    pattern = r"Temperature\{mValue=([-\d.E]+|NaN), mType=(-?\d+), mName=([^,}]*), mStatus=(\d+)\}"
    for value, kind, name, status in re.findall(pattern, text):
        # exactly zero and NaN stand for sensors that are not there
        if int(kind) in _SENSORS and value != "NaN" and float(value) != 0:
            yield Temperature(name=name, kind=_SENSORS[int(kind)], celsius=float(value), status=int(status))
