"""Devices by name."""

from collections.abc import Callable
from dataclasses import dataclass

from phonefit.device_bench.device import Device, DeviceInfo
from phonefit.models.errors import UnknownNameError


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device: what it is, and how to get at it.

    Attributes:
        summary: one line for `phonefit devices`.
        open: makes the device; cheap, touches nothing yet.
        ready: whether what the device needs is there; one that is not ready opens, and says when used what is missing.
    """

    summary: str
    open: Callable[[], Device]
    ready: Callable[[], bool] = lambda: True


def _host() -> Device:
    from phonefit.device_bench.host import HostDevice

    return HostDevice()


def _counts() -> Device:
    from phonefit.device_bench.emulator.counting import CountingDevice

    return CountingDevice()


def _counts_are_built() -> bool:
    from phonefit.device_bench.emulator.counting import missing

    return not missing()


DEVICES: dict[str, DeviceKind] = {
    "host": DeviceKind("this machine; a fresh process for each measurement, no memory limit", _host),
    "emulator:counts": DeviceKind(
        "one emulated ARM64 core, one thread: exact counts, estimated time; the same on every run",
        _counts,
        _counts_are_built,
    ),
}


def open_device(name: str) -> Device:
    """The device of that name.

    Raises:
        UnknownNameError: no device of that name.
    """
    if name not in DEVICES:
        raise UnknownNameError("device", name, DEVICES)
    return DEVICES[name].open()


def list_devices() -> dict[str, DeviceInfo]:
    """The devices that can be measured on now, by the name that `open_device` takes."""
    return {name: kind.open().info() for name, kind in DEVICES.items() if kind.ready()}
