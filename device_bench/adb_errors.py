"""What goes wrong between here and a device, and what a person can do about it."""

from phonefit.device_bench.device import DeviceError, MeasurementError


class NotAttachedError(DeviceError):
    """The device was not there when a command was to begin."""


class AdbCommandError(DeviceError):
    """The device answered, and refused or failed what was asked."""


class AdbTimeoutError(MeasurementError):
    """A command or copy that did not end in time. What ran on the device was killed."""


class ConnectionLostError(MeasurementError):
    """The device went away in the middle: unplugged, restarted, or its adb daemon died."""


_ACCEPT = (
    "unlock the phone and accept this computer on its screen (Allow USB debugging); if it does not ask, unplug it, "
    "plug it in again, or revoke the authorisations in its developer options"
)
_ATTACH = "plug the device in, unlock it, and switch on USB debugging in its developer options"
# A part of adb's or the device's words -> what to do. The first that matches counts.
_REMEDIES = {
    "unauthorized": _ACCEPT,
    "failed to authenticate": _ACCEPT,
    "authorizing": "wait a moment and try again; look at the phone's screen, it may ask for permission",
    "connecting": "wait a moment and try again",
    "no permissions": "let this user reach the phone over USB: on Linux install your distribution's Android udev rules",
    "offline": "unplug the cable and plug it in again; over a network: `adb disconnect`, then connect anew",
    "recovery": "restart the phone into Android",
    "sideload": "restart the phone into Android",
    "bootloader": "restart the phone into Android",
    "not found": _ATTACH,
    "absent": _ATTACH,
    "refused": "start the device, and check the address and port",
    "timed out": "check the address and port, and that both are on one network",
    "No space left": "free space on the device",
    "Read-only file system": "choose a folder on the device that can be written, such as /data/local/tmp",
    "Permission denied": "choose a folder on the device that this shell may use, such as /data/local/tmp",
    "No such file": "see whether it was removed on the device while in use, and run the same command again",
    "does not exist": "see whether it was removed on the device while in use, and run the same command again",
}


def remedy_for(words: str) -> str:
    """What to do about what adb or the device said."""
    return next(
        (remedy for part, remedy in _REMEDIES.items() if part.lower() in words.lower()),
        "try the command by hand to see more; `adb kill-server` and a new cable help more often than one thinks",
    )


def state_remedy(state: str) -> str:
    """What to do about a device in a state other than "device"."""
    return remedy_for(state)


def message(command: str, cause: str, remedy: str) -> str:
    """One line: which command, why it failed, what to do."""
    return f"{command}: {cause.strip().rstrip('.')}; {remedy}"


def cause_of(error: Exception) -> str:
    """The words of an error; its class where it has none."""
    return str(error).strip() or type(error).__name__
