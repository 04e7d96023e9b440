"""Devices by name: NAME, or NAME:OPTIONS for those that take options."""

from collections.abc import Callable
from dataclasses import dataclass

from phonefit.device_bench.device import Device, DeviceInfo
from phonefit.models.errors import UnknownNameError
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
    """

    summary: str
    open: Callable[[str], Device]
    options: str = ""
    missing: Callable[[], str] = _nothing


def _host(options: str) -> Device:
    from phonefit.device_bench.host import HostDevice

    return HostDevice()


def _counts(options: str) -> Device:
    from phonefit.device_bench.emulator.counting import CountingDevice

    return CountingDevice()


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


DEVICES: dict[str, DeviceKind] = {
    "host": DeviceKind("this machine; a fresh process for each measurement, no memory limit", _host),
    "emulator:counts": DeviceKind(
        "one emulated ARM64 core, one thread: exact counts, estimated time; the same on every run",
        _counts,
        missing=_counts_missing,
    ),
    "emulator": DeviceKind(
        "an emulated ARM64 phone with real adb and an enforced memory limit; 1 ns is one instruction",
        _emulator,
        options="ram=4G",
        missing=_emulator_missing,
    ),
    "adb": DeviceKind("a phone over adb; with several attached, adb:SERIAL", _adb, options="SERIAL"),
}


class DeviceLine(Frozen):
    """One line of `phonefit devices`.

    Attributes:
        name: as `--device` takes it.
        info: None when it was not asked or does not answer.
        state: "ready", "not built", or what adb says.
        remarks: why it cannot be measured on now, and what to do; empty when it can.
    """

    name: str
    info: DeviceInfo | None
    state: str
    remarks: str


def kind_of(name: str) -> tuple[DeviceKind, str]:
    """The kind and the options of a device's name.

    Raises:
        UnknownNameError: no device of that name.
    """
    if name in DEVICES:
        return DEVICES[name], ""
    first, _, options = name.partition(":")
    kind = DEVICES.get(first)
    if kind is None or not kind.options or not options:
        with_options = [f"{key}:{one.options}" for key, one in DEVICES.items() if one.options]
        raise UnknownNameError("device", name, [*DEVICES, *with_options])
    return kind, options


def open_device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownNameError: no device of that name.
        DeviceError: impossible options.
    """
    kind, options = kind_of(name)
    return kind.open(options)


def list_devices() -> list[DeviceLine]:
    """Every device that there is or could be: this machine, the emulators, and each phone that adb reaches.

    Starts no emulator. Problems with adb are a line of their own.
    """
    from phonefit.device_bench.android import attached
    from phonefit.device_bench.device import DeviceError

    lines = []
    for name in ("host", "emulator:counts", "emulator"):
        lacks = DEVICES[name].missing()
        asked = not lacks and name != "emulator"  # to ask it would start it
        info = DEVICES[name].open("").info() if asked else None
        lines.append(DeviceLine(name=name, info=info, state="not built" if lacks else "ready", remarks=lacks))
    try:
        phones = attached()
    except DeviceError as error:
        return [*lines, DeviceLine(name="adb", info=None, state="no adb", remarks=str(error))]
    found = [DeviceLine(name=one.name, info=one.info, state=one.state, remarks=one.remarks) for one in phones]
    return [*lines, *found]
