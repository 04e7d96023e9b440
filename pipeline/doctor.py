"""What this machine has and lacks, and how to get it."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.devices import DEVICES
from phonefit.device_bench.emulator.counting import GUEST
from phonefit.device_bench.native_runner import host_architecture, runners_state
from phonefit.models.record import Frozen

NEEDED_DISK_BYTES = 2_000_000_000


class Check(Frozen):
    """One fact about the machine.

    Attributes:
        needed: without it the main path does not work.
        remedy: what to do when it is missing.
    """

    name: str
    passed: bool
    found: str
    needed: bool
    remedy: str


def examine(runs: Path) -> tuple[Check, ...]:
    """All checks. Imports none of the heavy packages."""
    return (
        _python(),
        *_packages(),
        _demo_data(),
        _adb(),
        *_native_runners(),
        *_emulators(),
        _android_tools(),
        _disk(runs),
        _writable(runs),
        _load(),
    )


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(
        name="Python",
        passed=sys.version_info >= (3, 11),
        found=found,
        needed=True,
        remedy="make setup PYTHON=python3.11, or newer",
    )


def _packages() -> list[Check]:
    """Installed against declared versions; the pins of pyproject.toml are in phonefit's own metadata."""
    checks = []
    for requirement in importlib.metadata.requires("phonefit") or []:
        name, pinned = re.match(r"([A-Za-z0-9._-]+)(?:==([^;\s]+))?", requirement).groups()  # type: ignore[union-attr]
        if "extra ==" in requirement:
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        passed = found != "missing" and (pinned is None or found.split("+")[0] == pinned)
        wanted = f"{name}=={pinned}" if pinned else name
        checks.append(Check(name=name, passed=passed, found=found, needed=True, remedy=f"pip install {wanted}"))
    return checks


def _demo_data() -> Check:
    found = importlib.util.find_spec("elpv_dataset") is not None
    return Check(
        name="demo photographs",
        passed=found,
        found="installed" if found else "missing",
        needed=False,
        remedy="make setup, or pip install elpv-dataset==1.0.0.post1",
    )


def _adb() -> Check:
    """Without it no phone can be reached, nor the emulated one."""
    try:
        found, remedy = f"version {AdbServer().version()}", ""
    except DeviceError as error:
        found, remedy = "missing", str(error)
    return Check(name="adb", passed=not remedy, found=found, needed=False, remedy=remedy)


def _native_runners() -> list[Check]:
    """Of this machine and of the emulators: built, built from what has changed since, or not at all."""
    checks = []
    for architecture, remedy in {GUEST: "make emulator", host_architecture(): "make native"}.items():
        found = runners_state(architecture)
        if found == "outdated":
            remedy = f"they are of other sources or package versions; {remedy}"
        name = f"runners, {architecture}"
        checks.append(Check(name=name, passed=found == "built", found=found, needed=False, remedy=remedy))
    return checks


def _emulators() -> list[Check]:
    checks = []
    for name in ("emulator:counts", "emulator"):
        lacks = DEVICES[name].missing()
        found = "not ready" if lacks else "ready"
        checks.append(Check(name=f"device {name}", passed=not lacks, found=found, needed=False, remedy=lacks))
    return checks


def _android_tools() -> Check:
    """Commands that `make android-check` needs; what else it needs it fetches."""
    missing = [command for command in ("java", "npm") if shutil.which(command) is None]
    return Check(
        name="check of the Android app",
        passed=not missing,
        found=f"{' and '.join(missing)} missing" if missing else "ready",
        needed=False,
        remedy="make android-tools",
    )


def _disk(runs: Path) -> Check:
    place = next(folder for folder in (runs.resolve(), *runs.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return Check(
        name="free disk",
        passed=free >= NEEDED_DISK_BYTES,
        found=f"{free / 1e9:.1f} GB",
        needed=True,
        remedy=f"free {NEEDED_DISK_BYTES / 1e9:.0f} GB, or use another folder with --runs",
    )


def _writable(runs: Path) -> Check:
    place = next(folder for folder in (runs.resolve(), *runs.resolve().parents) if folder.exists())
    passed = os.access(place, os.W_OK)
    return Check(
        name="runs folder",
        passed=passed,
        found=f"{place} {'can' if passed else 'cannot'} be written",
        needed=True,
        remedy="use another folder with --runs",
    )


def _load() -> Check:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return Check(
        name="load",
        passed=load <= cores / 2,
        found=f"{load:.1f} on {cores} cores",
        needed=False,
        remedy="close other programs before measuring",
    )
