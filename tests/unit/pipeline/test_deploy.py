"""What is checked before anything is put on a phone. No device."""

import json
import zipfile

import pytest

from phonefit.device_bench.adb_server import Attached
from phonefit.device_bench.app_install import REFUSALS, InstallRefusedError
from phonefit.device_bench.device import DeviceError
from phonefit.models.artifact import Artifact
from phonefit.models.errors import FileFormatError
from phonefit.pipeline import deploy_apk
from phonefit.pipeline.deploy import find_models
from phonefit.pipeline.deploy_apk import find_apk, read_apk
from phonefit.pipeline.deploy_checks import Phone, choose_phone, objections, version_problem
from tests.device.app_fixtures import write_apk
from tests.unit.device_bench.test_stability import GOLDEN

ARTIFACT = Artifact.load(GOLDEN / "artifact_1.json")
PHONE = Phone(abis=("arm64-v8a", "armeabi-v7a"), sdk=35, free_bytes=10**9)


def attached(*pairs):
    return [Attached(serial, state, {"model": "Pixel_8"}) for serial, state in pairs]


@pytest.fixture
def apk(tmp_path):
    return read_apk(write_apk(tmp_path / "app.apk"))


def test_the_only_phone_is_taken_and_a_named_one_by_any_of_its_names():
    assert choose_phone(attached(("A1", "device")), None) == "A1"
    two = attached(("A1", "device"), ("B2", "device"))
    assert [choose_phone(two, name) for name in ("B2", "adb:B2", "app:B2")] == ["B2"] * 3


@pytest.mark.parametrize(
    ("found", "asked", "words"),
    [
        ((), None, ["no phone is attached", "tap `Build number` seven times", "USB debugging", "adb pair"]),
        ((("A1", "device"), ("B2", "device")), None, ["2 phones are attached", "Pixel_8", "--device A1", "DEVICE=A1"]),
        ((("A1", "unauthorized"),), None, ["A1 is unauthorized", "accept this computer on its screen"]),
        ((("A1", "offline"),), None, ["A1 is offline", "unplug the cable and plug it in again"]),
        ((("A1", "device"),), "C3", ["no phone with serial C3", "A1  device", "--device SERIAL"]),
    ],
)
def test_another_phone_than_one_usable_one_says_in_one_screen_what_to_do(found, asked, words):
    with pytest.raises(DeviceError) as caught:
        choose_phone(attached(*found), asked)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert caught.value.exit_code == 2
    lines = said.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 160


def test_everything_that_speaks_against_it_is_said_at_once(apk):
    old = Phone(abis=("x86",), sdk=24, free_bytes=1_000_000)
    first, second, third = objections(old, apk, [ARTIFACT], 10**8, install=True)
    assert "API level is 24, the app needs 26" in first
    assert "it runs arm64-v8a" not in first and "x86" in second and "arm64-v8a" in second
    assert "150 MB are needed and 1 MB are free: free 149 MB" in third
    assert objections(PHONE, apk, [ARTIFACT], 10**8, install=True) == []


def test_an_app_that_holds_no_libraries_runs_on_any_processor(apk):
    from dataclasses import replace

    assert objections(PHONE.model_copy(update={"abis": ("x86",)}), replace(apk, abis=()), [], 0, install=False) == []


@pytest.mark.parametrize(
    ("built", "made", "problem"),
    [
        ("1.5.1", "1.5.1", ""),
        ("1.6.0", "1.5.1", ""),
        ("1.5.0", "1.5.1+cpu", ""),
        ("1.4.9", "1.5.1", "made with ExecuTorch 1.5.1, the app has 1.4.9"),
        ("1.10.0", "1.9.0", ""),
    ],
)
def test_an_older_executorch_is_refused(tmp_path, built, made, problem):
    apk = read_apk(write_apk(tmp_path / "app.apk", executorch=built))
    artifact = ARTIFACT.model_copy(update={"runtime": "executorch", "tools": {"executorch": made}})
    assert problem in version_problem(artifact, apk) and bool(problem) == bool(version_problem(artifact, apk))


def test_a_runtime_that_the_app_lacks_is_named(tmp_path):
    path = tmp_path / "app.apk"
    with zipfile.ZipFile(path, "w") as archive:
        runtimes = {"schema_number": 1, "app_version": "1", "runtimes": {"onnx": "1.27.0"}}
        archive.writestr("assets/phonefit_runtimes.json", json.dumps(runtimes))
    assert "is for tflite, the app has onnx" in version_problem(ARTIFACT, read_apk(path))


def test_what_is_no_apk_of_the_app(tmp_path):
    text, empty = tmp_path / "a.apk", tmp_path / "b.apk"
    text.write_text("no zip")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("classes.dex", b"")
    for path, words in ((text, "not an APK"), (empty, "has no assets/phonefit"), (tmp_path / "c.apk", "no such file")):
        with pytest.raises(FileFormatError, match=words):
            find_apk(path)


def test_without_an_apk_and_without_gradle_it_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(deploy_apk.shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(DeviceError, match=r"no APK of the app[\s\S]*--apk FILE[\s\S]*Android Studio[\s\S]*Android SDK"):
        find_apk(None, tmp_path)
    built = tmp_path / deploy_apk.BUILT
    built.parent.mkdir(parents=True)
    write_apk(built)
    assert find_apk(None, tmp_path).abis == ("arm64-v8a",)


def test_gradle_builds_the_app_and_its_failure_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/somewhere")
    project = tmp_path / "android_demo"
    wrapper = project / "gradlew"
    (project / "gradle/wrapper").mkdir(parents=True)
    (project / "gradle/wrapper/gradle-wrapper.jar").write_bytes(b"")
    source = write_apk(tmp_path / "source.apk")
    wrapper.write_text(f"#!/bin/sh\nmkdir -p {(project / deploy_apk.BUILT).parent} && cp {source} {deploy_apk.BUILT}\n")
    wrapper.chmod(0o755)
    assert find_apk(None, project).path == project / deploy_apk.BUILT
    wrapper.write_text("#!/bin/sh\necho 'SDK location not found' >&2; exit 1\n")
    with pytest.raises(DeviceError, match=r"gradlew --quiet assembleDebug` failed[\s\S]*--apk FILE[\s\S]*SDK location"):
        find_apk(None, project)


def test_a_run_without_files_says_where_it_looked(tmp_path):
    with pytest.raises(FileFormatError, match=r"mine: no converted files .* in .*mine/files.*phonefit run"):
        find_models("mine", tmp_path)


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_says_what_it_means(code):
    said = str(InstallRefusedError(code, f"Failure [{code}]"))
    assert code in said and len(said) > len(code) * 2 + 40
