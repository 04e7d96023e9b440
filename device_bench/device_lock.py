"""One phonefit process at a time on a device: a lock by serial, held until it is left or the process ends."""

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.turns import resting, takes_turns
from phonefit.models.record import Frozen


class Holder(Frozen):
    """Who holds a device."""

    pid: int
    command: str
    since: str


class DeviceBusyError(DeviceError):
    """Another process works on the device."""


def state_folder() -> Path:
    """Where locks and journals lie: PHONEFIT_STATE, else phonefit in XDG_STATE_HOME, else ~/.local/state/phonefit."""
    named = os.environ.get("PHONEFIT_STATE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "phonefit"


def file_of(serial: str, suffix: str, state: Path | None = None) -> Path:
    """The file of a device in the state folder, which exists when this returns; a serial may hold any character."""
    folder = state or state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{quote(serial, safe='')}{suffix}"


@contextlib.contextmanager
def hold_device(serial: str, state: Path | None = None) -> Iterator[None]:
    """Hold a device for the length of the block. The kernel lets go of it when the process ends, however it ends.

    One of several workers of a search waits until the device is free.

    Args:
        serial: of the device.
        state: folder of the lock; None is `state_folder()`.

    Raises:
        DeviceBusyError: another process holds it; the message names its id and command.
    """
    # opened without truncating: until the lock is ours, the content is another's
    descriptor = os.open(file_of(serial, ".lock", state), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not takes_turns():
                raise DeviceBusyError(_busy(serial, os.pread(descriptor, 65536, 0))) from None
            with resting():
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        holder = Holder(pid=os.getpid(), command=_own_command(), since=time.strftime("%H:%M:%S"))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.model_dump_json().encode(), 0)
        yield
    finally:
        # the file stays: removing it could let two processes hold two files of one name
        os.close(descriptor)


def _busy(serial: str, content: bytes) -> str:
    try:
        holder = Holder.model_validate(json.loads(content))
    except ValueError:
        # the other has the lock but has not written its name yet
        return f"{serial} is in use by another phonefit process; wait until it is done"
    return (
        f"{serial} is in use by process {holder.pid} since {holder.since} ({holder.command}); "
        f"wait until it is done, or end it: kill {holder.pid}"
    )


def _own_command() -> str:
    return " ".join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])[:200]
