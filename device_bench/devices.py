"""Devices by name: NAME, or NAME:OPTIONS for those that take options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from phonefit.device_bench.device import Device, DeviceInfo
from phonefit.models.errors import PhonefitError, UnknownNameError
from phonefit.models.record import Frozen


def _nothing() -> str:
    return ""


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device: what it is, and how to get at it.

    Attributes:
        summary: one line for people.
        open: makes the device from its options, "" for none; cheap, touches nothing yet.
        options: what may follow the name and a colon, in words; "" when nothing may.
        missing: what the kind lacks on this machine, with the remedy; "" when nothing. A device that lacks something
            opens all the same, and says so when it is used.
        counts: reports on it hold counts, such as the instructions of an inference.
        time: measured by a clock, or modelled: worked out from counts. The two do not compare.
    """

    summary: str
    open: Callable[[str], Device]
    options: str = ""
    missing: Callable[[], str] = _nothing
    counts: bool = False
    time: Literal["measured", "modelled"] = "measured"


def _host(options: str) -> Device:
    from phonefit.device_bench.host import HostDevice

    return HostDevice()


def _counts(options: str) -> Device:
    from phonefit.device_bench.device import DeviceError
    from phonefit.device_bench.emulator.calibration import open_core
    from phonefit.device_bench.emulator.counting import DEFAULT_CORE

    name = options.removeprefix("core=") if options else DEFAULT_CORE
    if not name or (options and name == options):
        raise DeviceError(
            f"emulator:counts:{options}: its only option is the core, for example emulator:counts:core={DEFAULT_CORE}"
        )
    return open_core(name)


def _counts_missing() -> str:
    from phonefit.device_bench.emulator.counting import missing

    return missing()


def _emulator(options: str) -> Device:
    from phonefit.device_bench.emulator.phone import EmulatedPhone

    return EmulatedPhone(options)


def _emulator_missing() -> str:
    from phonefit.device_bench.emulator.phone import missing

    return missing()


def _adb(options: str) -> Device:
    from phonefit.device_bench.android import AndroidDevice

    return AndroidDevice(options or None)


def _app(options: str) -> Device:
    from phonefit.device_bench.app_device import AppDevice

    return AppDevice(options or None)


DEVICES: dict[str, DeviceKind] = {
    "host": DeviceKind("this machine; a fresh process for each measurement, no memory limit", _host),
    "emulator:counts": DeviceKind(
        "one emulated ARM64 core, one thread: exact counts, estimated time; the same on every run",
        _counts,
        options="core=NAME",
        missing=_counts_missing,
        counts=True,
        time="modelled",
    ),
    "emulator": DeviceKind(
        "an emulated ARM64 phone with real adb and an enforced memory limit; 1 ns is one instruction",
        _emulator,
        options="ram=4G",
        missing=_emulator_missing,
        time="modelled",
    ),
    "adb": DeviceKind("a phone over adb; with several attached, adb:SERIAL", _adb, options="SERIAL"),
    "app": DeviceKind(
        "a phone over adb, by the app that `phonefit deploy` puts there; with several attached, app:SERIAL",
        _app,
        options="SERIAL",
    ),
}


class DeviceLine(Frozen):
    """One line of `phonefit devices`.

    Attributes:
        name: as `--device` takes it.
        info: None when it was not asked or does not answer.
        state: "ready", "not ready", or what adb says.
        remarks: why it cannot be measured on now, and what to do; empty when it can.
    """

    name: str
    info: DeviceInfo | None
    state: str
    remarks: str

    @property
    def trusted(self) -> bool:
        """Whether figures that were measured now could be trusted, as far as the device tells."""
        return not self.remarks and self.state in ("ready", "device")


def kind_of(name: str) -> tuple[DeviceKind, str]:
    """The kind and the options of a device's name: the longest kind that the name begins with.

    Raises:
        UnknownNameError: no device of that name.
    """
    if name in DEVICES:
        return DEVICES[name], ""
    begun = [key for key in DEVICES if name.startswith(f"{key}:")]
    longest = max(begun, key=len, default="")
    options = name.removeprefix(f"{longest}:")
    if not begun or not DEVICES[longest].options or not options:
        with_options = [f"{key}:{one.options}" for key, one in DEVICES.items() if one.options]
        raise UnknownNameError("device", name, [*DEVICES, *with_options])
    return DEVICES[longest], options


def open_device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownNameError: no device of that name, or no core of the name in its options.
        FileFormatError: the file that the options name is not what it should be.
        DeviceError: impossible options.
    """
    kind, options = kind_of(name)
    return kind.open(options)


def list_devices() -> list[DeviceLine]:
    """Every device that there is or could be: this machine, the emulators with each core, and each phone on adb.

    Starts no emulator. Problems with adb are a line of their own.
    """
    from phonefit.device_bench.android import attached
    from phonefit.device_bench.device import DeviceError

    lines = []
    for name in ("host", "emulator:counts", "emulator"):
        lacks = DEVICES[name].missing()
        asked = not lacks and name != "emulator"  # to ask it would start it
        info = DEVICES[name].open("").info() if asked else None
        lines.append(DeviceLine(name=name, info=info, state="not ready" if lacks else "ready", remarks=lacks))
        if name == "emulator:counts":
            lines += _other_cores(lacks)
    try:
        phones = attached()
    except DeviceError as error:
        return [*lines, DeviceLine(name="adb", info=None, state="no adb", remarks=str(error))]
    found = [DeviceLine(name=one.name, info=one.info, state=one.state, remarks=one.remarks) for one in phones]
    return [*lines, *found]


def _other_cores(lacks: str) -> list[DeviceLine]:
    """The cores that `emulator:counts` takes beside its usual one: unfitted ones, and those of `phonefit calibrate`."""
    from phonefit.device_bench.emulator.calibration import fitted_cores, open_core
    from phonefit.device_bench.emulator.counting import DEFAULT_CORE
    from phonefit.device_bench.emulator.latency_model import cores

    lines = []
    for core in [*(name for name in cores() if name != DEFAULT_CORE), *fitted_cores()]:
        name = f"emulator:counts:core={core}"
        try:
            info = open_core(core).info()
        except PhonefitError as error:
            lines.append(DeviceLine(name=name, info=None, state="unusable", remarks=str(error)))
        else:
            lines.append(
                DeviceLine(name=name, info=None if lacks else info, state="not ready" if lacks else "ready", remarks="")
            )
    return lines
