"""The app's stand-in on the emulated phone, and APKs that hold what phonefit looks at; see app_stand_in.sh."""

import json
import zipfile
from pathlib import Path

import pytest

from phonefit.device_bench.app_job import RUNTIMES_ASSET, AppRuntimes
from phonefit.device_bench.emulator.machine import adb_of
from phonefit.device_bench.emulator.phone import missing
from phonefit.device_bench.journal import Journal
from phonefit.device_bench.native_runner import package_versions, runner_for
from phonefit.device_bench.shell_device import ShellDevice

pytest_plugins = ["tests.device.emulator_fixtures"]
SCRIPT = Path(__file__).with_name("app_stand_in.sh")
STATE = "/data/app-stand-in"
RUNNERS = "/data/local/tmp/phonefit-runners"
PROGRAMS = "am", "pm", "cmd", "run-as", "dumpsys", "getprop", "settings", "logcat"


def write_apk(path: Path, *, abi: str = "arm64-v8a", executorch: str | None = None) -> Path:
    """A zip with the two things that phonefit reads of an APK; no phone would take it."""
    versions = package_versions()
    runtimes = {
        "executorch": executorch or versions["executorch"],
        "tflite": versions["ai-edge-litert"],
        "onnx": versions["onnxruntime"],
    }
    with zipfile.ZipFile(path, "w") as archive:
        # without the time of day: equal content is an equal file
        content = json.dumps(AppRuntimes(app_version="0.1.0", runtimes=runtimes).as_json())
        archive.writestr(zipfile.ZipInfo(RUNTIMES_ASSET), content)
        archive.writestr(zipfile.ZipInfo(f"lib/{abi}/libexample.so"), b"\x7fELF")
    return path


class AppStandIn:
    """The emulated phone with the stand-in's programs."""

    def __init__(self, adb) -> None:
        self.adb = adb

    def fault(self, name: str) -> None:
        """What goes wrong from now on; "" nothing."""
        self.sh(f"echo '{name}' > {STATE}/fault")

    def files(self) -> list[str]:
        """All files below the folder of a shell, but the runners and the stand-in itself."""
        return self.sh("cd /data/local/tmp && find phonefit -type f | sort").split()

    def sh(self, script: str) -> str:
        return self.adb.shell(["sh", "-c", script]).stdout


@pytest.fixture(scope="module")
def app_phone(emulator_machine):
    """The emulated phone with native runners and, for this module, the stand-in's programs."""
    if lack := missing():
        pytest.fail(lack)
    adb = adb_of(emulator_machine.start())
    # as EmulatedPhone does, so that it finds them there
    kept = Journal(emulator_machine.folder / "runners.journal")
    ShellDevice(adb, kept, RUNNERS).install(runner_for("onnx", "aarch64").parents[1])
    target = f"/data/local/tmp/{SCRIPT.name}"
    adb.push(SCRIPT, target, executable=True)
    stand_in = AppStandIn(adb)
    programs = " ".join(f"/usr/bin/{name}" for name in PROGRAMS)
    remove = f"rm -rf {programs} {STATE} /data/local/tmp/phonefit"
    # also what a killed test left
    stand_in.sh(f"{remove}; mkdir -p {STATE}; for p in {programs}; do ln -s {target} $p; done")
    yield stand_in
    stand_in.sh(f"{remove} {target}")
