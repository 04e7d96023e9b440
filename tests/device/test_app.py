"""Deploy, measure, fetch and undeploy over real adb, with a stand-in for the app (app_stand_in.sh)."""

import pytest

from phonefit.device_bench.app_device import AppDevice
from phonefit.device_bench.app_files import pack
from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.phone_app import PhoneApp
from phonefit.device_bench.shell_device import ShellDevice
from phonefit.models.errors import FileFormatError
from phonefit.models.record import file_digest
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.deploy import deploy, find_models, undeploy
from phonefit.pipeline.deploy_apk import find_apk
from tests.device.app_case import run_folder
from tests.device.app_fixtures import write_apk

pytest_plugins = ["tests.device.app_fixtures"]
pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]
APP = "phonefit/app/models"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    run_folder(runs)
    return runs


@pytest.fixture
def place(app_phone, run, tmp_path):
    """Deploys to the phone, and opens it for measuring."""
    return Place(app_phone, run, tmp_path)


class Place:
    def __init__(self, phone, runs, folder):
        self.phone, self.runs, self.folder = phone, runs, folder
        self.known = {"server": phone.adb.server, "state": folder / "state"}

    def deploy(self, apk=None, runtimes=("onnx",), replace=False):
        files = find_models("small", self.runs, runtimes)
        found = find_apk(apk or write_apk(self.folder / "app.apk"))
        serial = self.phone.adb.serial
        return deploy(files, found, serial=serial, replace=replace, progress=SilentProgress(), **self.known)

    def undeploy(self):
        return undeploy(self.phone.adb.serial, **self.known)

    def open(self):
        return AppDevice(self.phone.adb.serial, **self.known)

    def bench(self, name, **settings):
        device = self.open()
        try:
            device.prepare()
            return bench(self.runs / "small/files" / name, device=device, attempts=1, **settings)
        finally:
            device.cleanup()


@pytest.fixture(autouse=True)
def whole_phone(app_phone):
    yield
    app_phone.fault("")


def test_from_a_bare_phone_to_a_report_and_back(place, app_phone):
    done = place.deploy(runtimes=())
    assert done.app in ("installed by a copy", "installed by pm") and done.app_version == "stand-in 0.1.0"
    assert "STAND-IN" in done.device.name
    by_name = {model.name: model for model in done.models}
    assert len(by_name) == 4 and all(model.pushed and not model.problem for model in done.models)
    assert by_name["quantised.tflite"].max_difference == 0
    assert max(model.max_difference for model in done.models) < 1e-5
    # what is left is the app's models, nothing of the verification
    names = {f"{APP}/{name}{end}" for name in by_name for end in ("", ".json")}
    assert set(app_phone.files()) == names
    # again: nothing is copied, everything is checked
    again = place.deploy(runtimes=())
    assert again.app == "was there" and not any(model.pushed for model in again.models)

    report = place.bench("quantised.tflite", warmups=1, repeats=10)
    assert report.device.kind == "app" and "STAND-IN" in report.device.name
    assert len(report.figures["latency"].samples) == 10 and report.figures["peak_memory"].samples[0] > 0
    assert "PSS" in report.figures["peak_memory"].note
    assert report.versions["org.phonefit.demo"] == "stand-in 0.1.0"
    assert report.conditions_before["app_thermal_status"] is None
    assert not any("differ" in doubt.reason for doubt in report.untrusted)
    assert set(app_phone.files()) == names

    removed = place.undeploy()
    assert removed.app_was_there and set(removed.models) == by_name.keys()
    assert app_phone.files() == [] and app_phone.sh("ls /data/local/tmp/phonefit") == ""
    assert not place.undeploy().app_was_there
    with pytest.raises(DeviceError, match=r"org\.phonefit\.demo is not on .*phonefit deploy"):
        place.bench("small.onnx")


def test_another_deployment_replaces_the_models(place, app_phone):
    place.undeploy()
    app_phone.sh(
        f"mkdir -p /data/local/tmp/{APP}; touch /data/local/tmp/{APP}/old.pte /data/local/tmp/{APP}/old.pte.json"
    )
    done = place.deploy()
    assert done.remarks == ("removed from the phone: old.pte",)
    assert app_phone.files() == [f"{APP}/small.onnx", f"{APP}/small.onnx.json"]


def test_an_app_that_is_ended_says_so_with_its_last_words(place, app_phone):
    place.deploy()
    app_phone.fault("kill")
    with pytest.raises(MeasurementError, match="crashed while running it: the process of this job ended"):
        place.bench("small.onnx")
    app_phone.fault("out_of_memory")
    with pytest.raises(MeasurementError, match="ended the app for want of memory; close other apps"):
        place.bench("small.onnx")
    app_phone.fault("")
    assert place.bench("small.onnx", repeats=3).figures["latency"].samples


def test_a_file_that_was_changed_and_one_that_the_runtime_refuses(place, tmp_path):
    place.deploy()
    whole = place.runs / "small/files/small.onnx"
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole.read_bytes()[:-200])
    parcel = pack(Job(model=whole, runtime="onnx"), tmp_path)
    device = place.open()
    try:
        device.prepare()
        app = PhoneApp(device._shell)
        app.put({**parcel.files, parcel.job.model: cut})
        with pytest.raises(MeasurementError, match=r"cannot read what was sent to it: .* is another file"):
            app.run(parcel.job, 60)
        known = parcel.job.model_copy(update={"sha256": file_digest(cut), "id": "another"})
        with pytest.raises(FileFormatError, match=r"onnx [\d.]+ of the app refuses the file: .*convert with the app's"):
            app.run(known, 60)
    finally:
        device.cleanup()


def test_what_a_killed_deployment_left_is_removed_by_the_next(place, app_phone, monkeypatch):
    class Killed(BaseException):
        """Ends the process in the middle of things."""

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PhoneApp, "run", killed)
        patch.setattr(ShellDevice, "finish", lambda shell: None)
        with pytest.raises(Killed):
            place.deploy()
    assert any("/inputs/" in name for name in app_phone.files())
    place.deploy()
    assert not any("/inputs/" in name for name in app_phone.files())


def test_an_app_with_an_older_runtime_is_refused_before_anything_is_copied(place, app_phone, tmp_path):
    place.undeploy()
    with pytest.raises(DeviceError, match=r"small\.pte was made with ExecuTorch [\d.]+, the app has 1\.0\.0"):
        place.deploy(apk=write_apk(tmp_path / "old.apk", executorch="1.0.0"), runtimes=("executorch", "onnx"))
    assert app_phone.files() == []
