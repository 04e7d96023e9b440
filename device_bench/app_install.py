"""Installing the app on a phone, in the ways that real phones need, and what their refusals mean."""

import contextlib
import posixpath
import re
from pathlib import Path

from phonefit.device_bench.adb import ShellResult
from phonefit.device_bench.adb_errors import AdbCommandError, AdbTimeoutError, message
from phonefit.device_bench.app_job import APPLICATION
from phonefit.device_bench.shell_device import ShellDevice

CAMERA = "android.permission.CAMERA"
# Replace, also by an older version, grant what it asks for, also a build for tests (which Android Studio makes).
_OPTIONS = "-r", "-d", "-g", "-t"
_INSTALL_SECONDS = 180.0
_SIGNATURE = "INSTALL_FAILED_UPDATE_INCOMPATIBLE"
# What the package manager says (AOSP, android.content.pm.PackageManager) -> what it means and what helps.
REFUSALS = {
    _SIGNATURE: (
        "the app on the phone was signed by another computer. `--replace` uninstalls it first: that loses what the app "
        "itself stored (results, settings); models that phonefit pushed stay"
    ),
    "INSTALL_FAILED_VERSION_DOWNGRADE": (
        "the phone holds a newer version that may not be replaced. `--replace` uninstalls it first: that loses what "
        "the app itself stored"
    ),
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "the phone has too little space for the app; free some and try again",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the APK holds no libraries for this phone's processor; build it for its ABI",
    "INSTALL_FAILED_OLDER_SDK": "the phone's Android is older than the app supports; use one with Android 8 or later",
    "INSTALL_FAILED_USER_RESTRICTED": (
        "the phone does not let adb install: switch on `Install via USB` in its developer options (Xiaomi: sign in "
        "first), and confirm on its screen"
    ),
    "INSTALL_FAILED_VERIFICATION_FAILURE": (
        "the phone's verifier refused it: switch off `Verify apps over USB` in its developer options, try again"
    ),
    "INSTALL_FAILED_ABORTED": "somebody, or a time-out, declined it: unlock the phone, try again, confirm there",
    "INSTALL_FAILED_TEST_ONLY": "the phone takes no build for tests; build the debug variant with Gradle",
    "INSTALL_FAILED_INVALID_APK": "the phone cannot read the APK; build it again",
    "INSTALL_PARSE_FAILED_NO_CERTIFICATES": "the APK is not signed; build the debug variant, which Gradle signs",
    "INSTALL_PARSE_FAILED_NOT_APK": "the file is no APK, or is cut off; build it again",
}


class InstallRefusedError(AdbCommandError):
    """The phone refuses the app. `code` is its own word for why."""

    def __init__(self, code: str, said: str) -> None:
        meaning = REFUSALS.get(code, "look the code up in Android's documentation of PackageManager")
        super().__init__(message("adb install", said, meaning))
        self.code = code


def install(shell: ShellDevice, apk: Path, *, replace: bool = False) -> str:
    """Install the app, by whichever way this phone takes, and return which it was.

    Args:
        replace: where the phone refuses because of the app that is there, uninstall that one.

    Raises:
        InstallRefusedError: the phone refuses it.
        DeviceError: it failed in another way.
    """
    try:
        return _install(shell, apk)
    except InstallRefusedError as error:
        if not replace or "--replace" not in REFUSALS.get(error.code, ""):
            raise
    uninstall(shell)
    return f"{_install(shell, apk)}, after uninstalling another"


def uninstall(shell: ShellDevice) -> None:
    """Remove the app and what it stored.

    Raises:
        DeviceError: the phone refuses it.
    """
    done = shell.adb.shell(["pm", "uninstall", APPLICATION], timeout_seconds=_INSTALL_SECONDS)
    said = (done.stdout + done.stderr).strip()
    if "Success" not in said:
        raise AdbCommandError(message(f"pm uninstall {APPLICATION}", said, "uninstall it on the phone by hand"))


def grant_camera(shell: ShellDevice) -> bool:
    """Let the app use the camera; False where the phone wants to ask its user itself."""
    return shell.adb.shell(["pm", "grant", APPLICATION, CAMERA]).exit_code == 0


def _install(shell: ShellDevice, apk: Path) -> str:
    """Streamed as adb does by itself; by a copy, for phones that take no stream; by the phone's own `pm`."""
    adb = shell.adb
    options: tuple[str, ...] = _OPTIONS
    for how, way in (("installed by a stream", ()), ("installed by a copy", ("--no-streaming",))):
        # some phones take no stream, and some of those let adb wait for an answer for ever
        with contextlib.suppress(AdbTimeoutError):
            done = adb.install(apk, (*way, *options))
            if "INSTALL_GRANT_RUNTIME_PERMISSIONS" in done.stdout + done.stderr:
                # some makers' phones let adb grant nothing: the app will ask
                options = tuple(option for option in options if option != "-g")
                done = adb.install(apk, (*way, *options))
            if _succeeded(done):
                return how
    target = posixpath.join(shell.folder, "app.apk")
    shell.put({target: apk})
    done = adb.shell(["pm", "install", *options, target], timeout_seconds=_INSTALL_SECONDS)
    adb.shell(["rm", "-f", target])
    if _succeeded(done):
        return "installed by pm"
    said = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[-500:]
    raise AdbCommandError(message("pm install", said, "install the APK by hand (adb install), then deploy again"))


def _succeeded(done: ShellResult) -> bool:
    """Whether an installation succeeded; False: this way is not known to the phone.

    Raises:
        InstallRefusedError: the phone refused the app itself, so another way would be refused as well.
    """
    said = done.stdout + done.stderr
    refused = re.search(r"Failure \[((?:INSTALL_FAILED|INSTALL_PARSE_FAILED)\w*)[^\]]*\]?", said)
    if refused:
        raise InstallRefusedError(refused[1], refused[0])
    return done.exit_code == 0 and "Success" in said
