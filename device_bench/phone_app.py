"""PhoneApp: the app of android_demo/ on one phone: is it there, start a job, wait for its result, also unplugged."""

import contextlib
import json
import posixpath
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from phonefit.device_bench.adb_errors import AdbTimeoutError, ConnectionLostError, NotAttachedError, message
from phonefit.device_bench.app_job import (
    APPLICATION,
    BENCHMARK,
    FOLDER,
    INPUTS,
    JOBS,
    LOG_TAG,
    MAIN,
    MODELS,
    AppJob,
    AppResult,
    result_path,
)
from phonefit.device_bench.device import DeviceError, MeasurementError
from phonefit.device_bench.parsers import parse_am_start, parse_logcat
from phonefit.device_bench.shell_device import ShellDevice
from phonefit.models.errors import FileFormatError

INSTALL_IT = "install it: phonefit deploy RUN"
_LONGEST_PAUSE = 2.0
_LOG_LINES = 10
# What run-as says of an app that it may not enter, and what helps (AOSP, system/core/run-as/run-as.cpp).
_RUN_AS = {
    "unknown package": INSTALL_IT,
    "not debuggable": "install the debug build, whose results adb may fetch: phonefit deploy RUN",
    "is not an application": INSTALL_IT,
}


class PhoneApp:
    """The app on a device that was started.

    Args:
        wait: sleeps; replaced in tests.
    """

    def __init__(self, shell: ShellDevice, wait: Callable[[float], None] = time.sleep) -> None:
        self._shell, self._adb = shell, shell.adb
        self._wait = wait

    def installed(self) -> str | None:
        """Path of the installed APK on the phone; None when the app is not there."""
        paths = self._adb.shell(["pm", "path", APPLICATION]).stdout.split()
        return next((path.removeprefix("package:") for path in paths if path.startswith("package:")), None)

    def make_folders(self) -> None:
        """The folders that the app reads from, which it may enter; `finish` removes those that are empty then."""
        folders = [FOLDER, MODELS, JOBS, INPUTS]
        self._shell.make_folders(folders)
        self._adb.shell(["chmod", "a+rx", self._shell.folder, *folders], check=True)

    def put(self, files: Mapping[str, Path]) -> None:
        """Copy files for one job, readable for the app; `finish` removes them."""
        self._shell.put(files)
        self.let_read(files)

    def let_read(self, files: Mapping[str, Path]) -> None:
        """Let the app read files on the phone: adb keeps the permissions that they have here."""
        if files:
            self._adb.shell(["chmod", "a+r", *files], check=True)

    def show(self) -> None:
        """Open the app's first screen; a locked phone shows it when it is unlocked.

        Raises:
            DeviceError: it does not open.
        """
        # without -W, which waits for a screen that a locked phone does not draw
        done = self._adb.shell(["am", "start", "-n", MAIN])
        said = done.stdout + done.stderr
        if "Error" in said or "Exception" in said:
            raise DeviceError(message("am start", said, INSTALL_IT))

    def run(self, job: AppJob, timeout_seconds: float) -> AppResult:
        """Run a job whose files are on the phone, and fetch its result; the phone may be unplugged meanwhile.

        Raises:
            DeviceError: the app is missing or does not start, or does not know this version's jobs.
            FileFormatError: the runtime refuses the model.
            MeasurementError: it was ended, failed, took too long, or the phone did not come back.
        """
        path = posixpath.join(JOBS, f"{job.id}.json")
        self._shell.undo_later(f"result of {job.id}", ["run-as", APPLICATION, "rm", "-f", result_path(job.id)])
        self._shell.undo_later("the running app", ["am", "force-stop", APPLICATION])
        with tempfile.TemporaryDirectory(prefix="phonefit-job-") as name:
            file = Path(name) / posixpath.basename(path)
            job.save(file)
            self.put({path: file})
        command = ["am", "start", "-W", "-S", "-n", BENCHMARK, "--es", "job", path]
        self._start(command)
        return require_figures(job, self._wait_for(job, command, timeout_seconds))

    def _start(self, command: list[str]) -> None:
        try:
            done = self._adb.shell(command, timeout_seconds=60.0)
        except AdbTimeoutError:
            return  # as for "timeout" below
        said = done.stdout + done.stderr
        launch = parse_am_start(said)
        # "timeout": no screen was drawn, as on a locked phone of some makers; the job may run, its result tells
        if not launch.ok and "Status: timeout" not in said:
            raise DeviceError(message(" ".join(command[:2]), launch.complaint or said, INSTALL_IT))

    def _wait_for(self, job: AppJob, command: list[str], timeout_seconds: float) -> AppResult:
        deadline = time.monotonic() + timeout_seconds
        # nothing can be there before; asking would only disturb what is measured
        self._wait(min(_least_seconds(job), timeout_seconds))
        pause, asked_why = 0.2, False
        while time.monotonic() < deadline:
            try:
                result = self._ended(job)
                if result is None and not self._runs():
                    # it may have ended well between the two questions
                    result = self._ended(job)
                    if result is None and asked_why:
                        raise MeasurementError(
                            f"the app was ended on the phone and left no result{self._last_words()}; "
                            "close other apps, or try a smaller model"
                        )
                    if result is None:
                        # started once more it tells how its earlier process ended
                        asked_why = True
                        self._start(command)
                if result is not None:
                    return result
            except DeviceError as error:
                # it may be back by the time that its state is asked for
                gone = isinstance(error, ConnectionLostError | NotAttachedError) or self._adb.state() != "device"
                if not gone or not self._adb.wait_until_usable(deadline - time.monotonic()):
                    raise
            self._wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise MeasurementError(
            f"no result of the app after {timeout_seconds:g} s{self._last_words()}; unlock the phone and look at its "
            "screen, allow more time, or ask for less work"
        )

    def _ended(self, job: AppJob) -> AppResult | None:
        """The result; None as long as it is not there."""
        found = self._adb.shell(["run-as", APPLICATION, "cat", result_path(job.id)])
        if found.exit_code == 0:
            result = parse_result(found.stdout)
            return result if result.status != "running" else None
        said = found.stderr.strip() or found.stdout.strip()
        if "No such file" in said:
            return None
        remedy = next((remedy for part, remedy in _RUN_AS.items() if part in said), "open the app once by hand")
        raise DeviceError(message(f"run-as {APPLICATION}", said, remedy))

    def _runs(self) -> bool:
        return self._adb.shell(["pidof", APPLICATION]).exit_code == 0

    def _last_words(self) -> str:
        """What the app logged last, as far as the phone still answers."""
        with contextlib.suppress(DeviceError):
            text = self._adb.shell(["logcat", "-d", "-v", "threadtime", "-s", LOG_TAG]).stdout
            lines = [line.text for line in parse_logcat(text)][-_LOG_LINES:]
            return "; its last words:\n" + "\n".join(lines) + "\n" if lines else ""
        return ""


def _least_seconds(job: AppJob) -> float:
    """How long a job takes at least, for a phone that is unplugged already."""
    return job.energy.idle_seconds + job.energy.seconds if job.energy else job.seconds or 0.0


def parse_result(text: str) -> AppResult:
    """What the app wrote.

    Raises:
        MeasurementError: it is no result of a schema that this version knows.
    """
    remedy = f"the app and phonefit must be of one version; {INSTALL_IT}"
    try:
        content = json.loads(text)
        schema = content.get("schema_number") if isinstance(content, dict) else None
        if schema != AppResult.current_schema():
            raise MeasurementError(
                f"the app's result has schema {schema!r}, this phonefit reads {AppResult.current_schema()}: {remedy}"
            )
        return AppResult.model_validate(content)
    except json.JSONDecodeError as error:
        raise MeasurementError(f"the app's result is not JSON ({error}): {remedy}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MeasurementError(f"unusable result of the app: {where}: {first['msg']}: {remedy}") from None


def require_figures(job: AppJob, result: AppResult) -> AppResult:
    """The result of a job that must have figures. Pure.

    Raises:
        FileFormatError: the runtime refuses the model.
        DeviceError: the app does not know this version's jobs.
        MeasurementError: anything else that is not "ok".
    """
    model = posixpath.basename(job.model)
    if result.job_id != job.id:
        raise MeasurementError(f"the app answered with the result of another job ({result.job_id}); measure again")
    if result.status == "ok":
        return result
    said = f": {result.error.message}" if result.error else ""
    if result.status == "out_of_memory":
        raise MeasurementError(
            f"{model}: the phone ended the app for want of memory{said}; close other apps, or try a smaller model"
        )
    kind = result.error.kind if result.error else "crash"
    if kind == "job":
        raise DeviceError(f"the app {result.app_version} refuses the job{said}; {INSTALL_IT}")
    if kind == "model":
        version = result.runtimes.get(job.runtime, "unknown")
        raise FileFormatError(
            f"{model}: {job.runtime} {version} of the app refuses the file{said}; build the app with the version that "
            "the file was made with, or convert with the app's"
        )
    if kind in ("file", "digest"):
        raise MeasurementError(f"{model}: the app cannot read what was sent to it{said}; run the same command again")
    what = "crashed while running it" if kind == "crash" else f"{job.runtime} gave up while running it"
    raise MeasurementError(f"{model}: the app {what}{said}; the file may be damaged, or need another version of it")
