"""What tests with the real adb client need: a server of their own, the bundled client, a device at its other end.

Test modules ask for these fixtures by `pytest_plugins`; they bear names that no other fixture of these tests has.
"""

import contextlib
import os
import socket
import time
from pathlib import Path

import adbutils
import psutil
import pytest

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.android import AndroidDevice
from tests.device.adb_device_stand_in import AdbDeviceStandIn
from tests.device.phone_case import become_phone, runner_folder

# What a phonefit process does; `bench` has the same order.
PROCESS = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with Ctrl-C ignored
from pathlib import Path
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.android import AndroidDevice
from phonefit.device_bench.device import Job
case = json.loads(sys.argv[1])
device = AndroidDevice(case["serial"], server=AdbServer(case["port"], case["binary"]), state=Path(case["state"]),
                       find_runner=lambda runtime, architecture: Path(case["program"]))
try:
    device.prepare()
    device.run(Job.model_validate(case["job"]))
finally:
    device.cleanup()
"""
# Tells its process id and never ends; with a child, as a runner under a wrapper is.
HANGS = """
    #!/bin/sh
    echo "loading the model"
    sleep 600 &
    echo $$ $! > {pids}
    wait
"""


@contextlib.contextmanager
def private_server(folder: Path):
    """An adb server that a person's own adb never meets: own port, own keys, no USB, no search of the network."""
    home = folder / "home"
    home.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        "HOME": str(home),
        "ANDROID_USER_HOME": str(home),
        "TMPDIR": str(home),
        "ADB_USB": "0",
        "ADB_MDNS": "0",
        "ADB_EMU": "0",
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
    }
    bundled = Path(adbutils.__file__).parent / "binaries" / "adb"
    server = AdbServer(port, str(bundled), environment)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def attached_stand_in(server: AdbServer, root: Path):
    """A device that the server is connected to."""
    with AdbDeviceStandIn(root) as stand_in:
        server.connect(stand_in.serial)
        try:
            yield stand_in
        finally:
            server.disconnect(stand_in.serial)


@pytest.fixture(scope="session")
def private_adb(tmp_path_factory):
    """One adb server for each test process."""
    with private_server(tmp_path_factory.mktemp("adb")) as started:
        yield started


@pytest.fixture
def stand_in(private_adb, tmp_path):
    """A device of a test's own."""
    with attached_stand_in(private_adb, tmp_path / "device") as device:
        yield device


@pytest.fixture
def stand_in_adb(private_adb, stand_in):
    """The same, as adb reaches it."""
    return Adb(stand_in.serial, private_adb)


def wait_for(happened, seconds=120):  # a busy machine is slow; what happens at all happens long before
    deadline = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


@pytest.fixture
def open_device(private_adb, stand_in, tmp_path):
    """Opens the phone with a runner that does as the script says; all are cleaned up at the end."""
    become_phone(stand_in)
    opened = contextlib.ExitStack()
    count = 0

    def open_with(*script):
        nonlocal count
        count += 1
        program = runner_folder(tmp_path / f"native_{count}", *script)
        device = AndroidDevice(
            stand_in.serial, server=private_adb, state=tmp_path / "state", find_runner=lambda *_: program
        )
        opened.callback(device.cleanup)
        return device

    with opened:
        yield open_with


@pytest.fixture
def hanging(tmp_path):
    """A runner that hangs, and the processes that it has become on the device."""
    pids = tmp_path / "pids"

    def processes():
        text = pids.read_text() if pids.exists() else ""
        return [int(word) for word in text.split()] if text.endswith("\n") else []

    return HANGS.format(pids=pids), processes


def alive(pids):
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def open_and_run(open_device, job):
    device = open_device()
    device.prepare()
    try:
        return device.run(job)
    finally:
        device.cleanup()
