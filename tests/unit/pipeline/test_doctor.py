"""What `phonefit doctor` and `phonefit devices` say about adb, the native runners and the emulators."""

import json

import adbutils
import pytest
from adbutils.errors import AdbError
from typer.testing import CliRunner

from phonefit.device_bench import native_runner
from phonefit.device_bench.emulator import phone
from phonefit.device_bench.native_runner import PACKAGES, STAMP, Built, host_architecture, inputs_digest
from phonefit.pipeline import doctor
from phonefit.pipeline.cli import app


def checks(tmp_path):
    return {check.name: check for check in doctor.examine(tmp_path)}


def no_adb():
    raise AdbError("No adb exe could be found")


def test_a_machine_without_adb(tmp_path, monkeypatch):
    monkeypatch.setattr(adbutils, "adb_path", no_adb)
    # a port where no server listens, so that one would have to be started
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    check = checks(tmp_path)["adb"]
    assert (check.passed, check.found, check.needed) == (False, "missing", False)
    assert "install adbutils anew, or adb itself" in check.remedy
    result = CliRunner().invoke(app, ["devices", "--json"])
    assert result.exit_code == 0
    (line,) = [line for line in json.loads(result.output) if line["name"] == "adb"]
    assert (line["state"], line["trusted"]) == ("no adb", False) and "adb itself" in line["remarks"]


def test_an_adb_that_does_not_run(tmp_path, monkeypatch):
    program = tmp_path / "adb"
    monkeypatch.setattr(adbutils, "adb_path", lambda: str(program))
    assert "No such file" in checks(tmp_path)["adb"].remedy
    program.write_text("#!/bin/sh\necho 'wrong processor' >&2; exit 1\n")
    program.chmod(0o755)
    check = checks(tmp_path)["adb"]
    assert not check.passed and f"{program} version: wrong processor; install adb" in check.remedy


@pytest.mark.parametrize(
    ("inputs", "found", "remedy"),
    [
        (None, "not built", "make native"),
        ("of an earlier version", "outdated", "they are of other sources or package versions; make native"),
        (inputs_digest(), "built", "make native"),
    ],
)
def test_native_runners_that_are_missing_or_outdated(tmp_path, monkeypatch, inputs, found, remedy):
    folder = tmp_path / host_architecture()
    (folder / "bin").mkdir(parents=True)
    for runtime in PACKAGES:
        (folder / "bin" / f"phonefit_{runtime}").write_text("program")
    if inputs is not None:
        Built(inputs=inputs, files={}).save(folder / STAMP)
    monkeypatch.setattr(native_runner, "default_root", lambda: tmp_path)
    check = checks(tmp_path)[f"runners, {host_architecture()}"]
    assert (check.found, check.passed, check.remedy) == (found, found == "built", remedy)


def test_an_emulator_that_is_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(phone, "default_cache", lambda: tmp_path)
    check = checks(tmp_path)["device emulator"]
    assert (check.passed, check.found) == (False, "not ready") and "make emulator" in check.remedy
    lines = json.loads(CliRunner().invoke(app, ["devices", "--json"]).output)
    (line,) = [line for line in lines if line["name"] == "emulator"]
    assert (line["state"], line["info"], line["trusted"]) == ("not ready", None, False)
    assert "make emulator" in line["remarks"]


@pytest.mark.emulator
def test_outdated_runners_are_told_from_missing_ones_wherever_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(native_runner, "default_root", lambda: tmp_path)
    assert native_runner.runners_state("aarch64") == "not built"
    (tmp_path / "aarch64").mkdir()
    Built(inputs="of an earlier version", files={}).save(tmp_path / "aarch64" / STAMP)
    assert phone.missing() == "the native runners for aarch64 are outdated; build them with: make emulator"
