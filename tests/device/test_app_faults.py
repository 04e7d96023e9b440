"""What goes wrong between phonefit and the app: the real adb client, and scripted replies of Android's programs."""

import json
import os
import subprocess
import sys
import threading

import pytest

from phonefit.device_bench.app_device import AppDevice
from phonefit.device_bench.app_install import REFUSALS, InstallRefusedError, grant_camera, install
from phonefit.device_bench.app_job import JOBS, AppEnergy, AppJob, AppResult
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.journal import Journal
from phonefit.device_bench.phone_app import PhoneApp
from phonefit.device_bench.shell_device import ShellDevice
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.deploy import deploy, undeploy
from phonefit.pipeline.deploy_apk import read_apk
from tests.device.adb_fixtures import attached_stand_in, wait_for
from tests.device.app_fixtures import write_apk
from tests.device.phone_case import become_phone
from tests.foreign_models import small_model
from tests.unit.device_bench.test_stability import GOLDEN

pytest_plugins = ["tests.device.adb_fixtures"]
RESULT = AppResult.load(GOLDEN / "app_result_1.json")
STARTED = "Status: ok\nActivity: org.phonefit.demo/.BenchmarkActivity\nTotalTime: 1\nComplete\n"


class ScriptedApp:
    """Replies of `am`, `pm`, `run-as`, `pidof` and `logcat` for one device.

    Attributes:
        refusal: code with which installations are refused, until the app is uninstalled; None: they are not.
        may_grant: whether adb may give the app permissions.
        results: what `run-as … cat` finds in turn, the last one for ever; a status, or a whole result.
    """

    def __init__(self, stand_in, installed=True):
        self.stand_in, self.installed = stand_in, installed
        self.refusal, self.results, self.runs, self.may_grant = None, ["ok"], True, True
        become_phone(stand_in)
        stand_in.replies |= {
            "pm": self.pm,
            "am": lambda arguments: (0, STARTED),
            "run-as": self.run_as,
            "pidof": lambda arguments: (0 if self.runs else 1, ""),
            "logcat": "11-24 12:00:00.000  1  1 I phonefit: loading small.onnx\n",
        }

    def pm(self, arguments):
        match arguments[1]:
            case "install" | "grant" if not self.may_grant and (arguments[1] == "grant" or "-g" in arguments):
                return 1, "java.lang.SecurityException: needs android.permission.INSTALL_GRANT_RUNTIME_PERMISSIONS\n"
            case "install":
                if self.refusal:
                    return 1, f"Failure [{self.refusal}: by the test]\n"
                self.installed = True
            case "uninstall":
                self.installed, self.refusal = False, None
            case "path":
                return (0, "package:/data/app/base.apk\n") if self.installed else (1, "")
        return 0, "Success\n"

    def run_as(self, arguments):
        if arguments[2] != "cat":
            return 0, ""
        found = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(found, str) and found not in ("running", "ok"):
            return 1, found
        job = AppJob.load(self.stand_in.local(f"{JOBS}/{arguments[3].rpartition('/')[2]}"))
        if isinstance(found, str):
            found = RESULT.model_copy(update={"status": found, "gauge": ()})
        return 0, json.dumps(found.model_copy(update={"job_id": job.id}).as_json())


@pytest.fixture
def app(stand_in):
    return ScriptedApp(stand_in)


@pytest.fixture
def shell(stand_in_adb, tmp_path):
    started = ShellDevice(stand_in_adb, Journal(tmp_path / "journal.json"))
    started.start()
    yield started
    started.finish()


@pytest.fixture
def job(tmp_path):
    return Job(model=small_model(tmp_path, "onnx"), runtime="onnx", warmups=0, repeats=1, timeout_seconds=20)


@pytest.fixture
def measure(app, private_adb, stand_in, tmp_path):
    def run(job):
        device = AppDevice(stand_in.serial, server=private_adb, state=tmp_path / "state", wait=lambda seconds: None)
        try:
            device.prepare()
            return device.run(job)
        finally:
            device.cleanup()

    return run


def test_a_phone_that_takes_no_stream_gets_a_copy(app, shell, tmp_path):
    app.installed = False
    assert install(shell, write_apk(tmp_path / "app.apk")) in ("installed by a copy", "installed by pm")
    assert app.installed


def test_a_phone_that_lets_adb_grant_nothing(app, shell, tmp_path):
    app.installed = app.may_grant = False
    assert install(shell, write_apk(tmp_path / "app.apk")) in ("installed by a copy", "installed by pm")
    assert app.installed and not grant_camera(shell)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_explained(app, shell, tmp_path, code):
    app.refusal, app.installed = code, False
    with pytest.raises(InstallRefusedError, match=code):
        install(shell, write_apk(tmp_path / "app.apk"))
    assert not app.installed


def test_an_app_of_another_computer_is_uninstalled_only_when_that_is_asked_for(app, shell, tmp_path):
    apk = write_apk(tmp_path / "app.apk")
    app.refusal = "INSTALL_FAILED_UPDATE_INCOMPATIBLE"
    with pytest.raises(InstallRefusedError, match=r"signed by another computer.*loses what the app itself stored"):
        install(shell, apk)
    assert app.installed
    app.refusal = "INSTALL_FAILED_UPDATE_INCOMPATIBLE"
    assert install(shell, apk, replace=True).endswith(", after uninstalling another")
    app.refusal = "INSTALL_FAILED_USER_RESTRICTED"
    with pytest.raises(InstallRefusedError, match="Install via USB"):
        install(shell, apk, replace=True)


def test_a_report_by_the_app_and_nothing_left(measure, stand_in, job):
    run = measure(job)
    assert run.sample_nanoseconds == RESULT.sample_ns and run.memory_kind == "proportional"
    assert stand_in.files() == []


def test_an_app_that_is_not_there(app, measure, job):
    app.installed = False
    with pytest.raises(DeviceError, match=r"is not on Google Pixel 8 .*phonefit deploy RUN"):
        measure(job)


def test_a_result_is_waited_for(app, measure, job):
    app.results = ["cat: x: No such file or directory", "running", "running", "ok"]
    assert measure(job).sample_nanoseconds == RESULT.sample_ns


def test_an_app_that_was_ended_is_asked_why(app, measure, stand_in, job):
    app.runs, app.results = False, ["running", "running", RESULT.model_copy(update={"status": "out_of_memory"})]
    with pytest.raises(MeasurementError, match="for want of memory"):
        measure(job)
    assert sum(command.startswith("am start") for command in stand_in.commands) == 2


def test_an_app_that_was_ended_and_does_not_say_why(app, measure, stand_in, job):
    app.runs, app.results = False, ["running"]
    with pytest.raises(MeasurementError, match=r"left no result; its last words:\nloading small\.onnx\n"):
        measure(job)
    assert stand_in.files() == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("run-as: package not debuggable: org.phonefit.demo", "install the debug build"),
        ("run-as: unknown package: org.phonefit.demo", "phonefit deploy RUN"),
    ],
)
def test_a_result_that_adb_may_not_fetch(app, measure, job, said, words):
    app.results = [said]
    with pytest.raises(DeviceError, match=words):
        measure(job)


def test_an_app_that_does_not_start(measure, stand_in, job):
    stand_in.replies["am"] = (
        "Error type 3\nError: Activity class {org.phonefit.demo/.BenchmarkActivity} does not exist.\n"
    )
    with pytest.raises(DeviceError, match=r"am start: Activity class .* does not exist; install it"):
        measure(job)


def test_a_locked_phone_that_draws_no_screen_still_measures(app, measure, stand_in, job):
    stand_in.replies["am"] = "Status: timeout\nActivity: org.phonefit.demo/.BenchmarkActivity\nComplete\n"
    assert measure(job).sample_nanoseconds == RESULT.sample_ns


def test_the_first_screen_is_opened_without_waiting_for_it(app, shell, stand_in):
    stand_in.replies["am"] = "Starting: Intent { cmp=org.phonefit.demo/.MainActivity }\n"
    PhoneApp(shell).show()
    assert stand_in.commands[-1].startswith("am start -n ")
    stand_in.replies["am"] = "Error type 3\nError: Activity class {x} does not exist.\n"
    with pytest.raises(DeviceError, match=r"am start: [\s\S]*does not exist; install it"):
        PhoneApp(shell).show()


def test_outputs_that_differ_are_a_reason_not_to_trust_the_report(app, measure, job):
    wrong = RESULT.correctness.model_copy(update={"max_difference": 0.5, "passed": False})
    app.results = [RESULT.model_copy(update={"correctness": wrong})]
    assert "by up to 50.00% of their range" in measure(job).wrong_outputs


def test_the_cable_is_pulled_while_the_app_measures_and_put_in_again(app, shell, private_adb, stand_in):
    energy = AppEnergy(idle_seconds=1, seconds=1, wait_for_unplug_seconds=5)
    job = AppJob.load(GOLDEN / "app_job_1.json").model_copy(update={"energy": energy})
    phone = PhoneApp(shell, wait=lambda seconds: pull())
    phone.make_folders()

    def pull():
        if stand_in.answering and not replugging:
            stand_in.answering = False
            stand_in.unplug()
            replugging.append(threading.Thread(target=put_in_again))
            replugging[0].start()

    def put_in_again():
        wait_for(lambda: shell.adb.state() != "device")
        stand_in.answering = True
        private_adb.disconnect(stand_in.serial)
        private_adb.connect(stand_in.serial)

    replugging = []
    assert phone.run(job, 60).sample_ns == RESULT.sample_ns
    replugging[0].join()


def test_a_job_that_never_ends_is_given_up(app, shell):
    app.results = ["running"]
    job = AppJob.load(GOLDEN / "app_job_1.json")
    phone = PhoneApp(shell, wait=lambda seconds: None)
    phone.make_folders()
    with pytest.raises(
        MeasurementError, match=r"no result of the app after 0.5 s[\s\S]*loading small\.onnx[\s\S]*unlock"
    ):
        phone.run(job, 0.5)


@pytest.mark.parametrize(
    ("free", "abi", "executorch", "words"),
    [
        (10_000_000, "arm64-v8a", None, r"50 MB are needed and 10 MB are free: free 40 MB on the phone"),
        (None, "x86_64", None, r"runs arm64-v8a, the APK holds x86_64: build the app for arm64-v8a"),
    ],
)
def test_a_phone_that_is_not_fit_gets_nothing(app, private_adb, stand_in, tmp_path, free, abi, executorch, words):
    stand_in.free_bytes = free
    apk = read_apk(write_apk(tmp_path / "app.apk", abi=abi))
    with pytest.raises(DeviceError, match=words):
        deploy({}, apk, serial=stand_in.serial, replace=False, progress=SilentProgress(), server=private_adb,
               state=tmp_path / "state")  # fmt: skip
    assert stand_in.files() == []


def test_undeploying_what_is_not_there(app, private_adb, stand_in, tmp_path):
    app.installed = False
    done = undeploy(stand_in.serial, private_adb, tmp_path / "state")
    assert not done.app_was_there and done.models == ()
    assert stand_in.files() == []


def phonefit(server, tmp_path, *words):
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(server.port), "PHONEFIT_STATE": str(tmp_path / "state")}
    line = [sys.executable, "-m", "phonefit.pipeline.cli", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)


def test_no_phone_two_phones_and_a_phone_that_does_not_know_this_computer(private_adb, tmp_path):
    command = "deploy", "demo"
    private_adb.devices()  # the server runs
    bare = phonefit(private_adb, tmp_path, *command)
    assert bare.returncode == 2 and "no phone is attached" in bare.stderr and "USB debugging" in bare.stderr
    with attached_stand_in(private_adb, tmp_path / "a") as one, attached_stand_in(private_adb, tmp_path / "b") as two:
        both = phonefit(private_adb, tmp_path, *command)
        assert both.returncode == 2 and "2 phones are attached" in both.stderr
        assert one.serial in both.stderr and two.serial in both.stderr and "--device" in both.stderr
        private_adb.disconnect(one.serial)
        one.authorised = False
        with pytest.raises(DeviceError, match="unlock the phone"):
            private_adb.connect(one.serial)
        stranger = phonefit(private_adb, tmp_path, *command, "--device", one.serial)
        assert stranger.returncode == 2 and "accept this computer on its screen" in stranger.stderr
    for done in (bare, both, stranger):
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 24
