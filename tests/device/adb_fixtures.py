"""What tests with the real adb client need: a server of their own, the bundled client, a device at its other end.

Test modules ask for these fixtures by `pytest_plugins`; they bear names that no other fixture of these tests has.
"""

import contextlib
import os
import socket
from pathlib import Path

import adbutils
import pytest

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_server import AdbServer
from tests.device.adb_device_stand_in import AdbDeviceStandIn


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
