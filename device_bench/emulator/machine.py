"""The emulated phone's QEMU process: started once, found again by any later process, stopped cleanly.

One machine for each set of options, each with a folder of its own under .cache/emulator/run: state.json says which
process it is and on which port its adbd answers. A state whose process has ended, or whose process id now belongs to
another program, counts as none.

It is attached to an adb server of its own, so that a person's adb does not see it beside their phones.

QEMU counts instructions and the guest's clock is made from them (-icount shift=0: 1 ns an instruction), so times
measured in the guest do not depend on what else this machine does. While the guest waits, its clock goes on with this
machine's (sleep=on, the default): with sleep=off it would jump from one timer to the next, which keeps a core of this
machine busy and lets the guest's time-outs pass in no time.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator.image import Image, find_image, image_folder, is_current
from phonefit.device_bench.emulator.locks import locked
from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen, Record

QEMU = "qemu-system-aarch64"
_MEBIBYTE, _GIBIBYTE = 2**20, 2**30
_SMALLEST_RAM = 256 * _MEBIBYTE
# A file with holes: it takes only what the guest writes.
_DISK_BYTES = 8 * _GIBIBYTE
# Started on a quiet machine it takes 7 s; on a busy one a multiple.
_BOOT_SECONDS = 180.0
_POWER_OFF_SECONDS, _TERMINATE_SECONDS = 10.0, 5.0
_PORT_ATTEMPTS = 5
_KERNEL_COMMAND = "console=ttyAMA0 quiet panic=-1 mitigations=off nokaslr norandmaps"


class MachineOptions(Frozen):
    """What the machine is like.

    Attributes:
        ram_bytes: memory of the guest, whole MiB.
    """

    ram_bytes: int = 6 * _GIBIBYTE

    @property
    def name(self) -> str:
        """Name of the folder of machines with these options."""
        return f"ram-{self.ram_bytes // _MEBIBYTE}M"


class MachineState(Record):
    """A machine that was started.

    Attributes:
        process: its process id; `process_started` (seconds since 1970) tells it from a later process with the same id.
        port: of its adbd, on 127.0.0.1.
        adb_server_port: of the adb server that it is attached to.
        image: digest of what the image was built from.
    """

    schema_number: int = 1
    process: int
    process_started: float
    port: int
    adb_server_port: int
    options: MachineOptions
    image: str
    emulator_version: str

    @property
    def serial(self) -> str:
        """Its serial in adb."""
        return f"127.0.0.1:{self.port}"


def parse_options(text: str) -> MachineOptions:
    """Options from text such as "ram=4G" (k, M, G: powers of 1024); "" gives the defaults.

    Raises:
        DeviceError: an unknown option or an impossible value.
    """
    if not text:
        return MachineOptions()
    match = re.fullmatch(r"ram=(\d+)([MG])", text)
    if match is None:
        raise DeviceError(f"emulator:{text}: the emulator's only option is its memory, for example emulator:ram=4G")
    ram = int(match[1]) * {"M": _MEBIBYTE, "G": _GIBIBYTE}[match[2]]
    if ram < _SMALLEST_RAM:
        raise DeviceError(f"emulator:{text}: the emulated phone needs at least {_SMALLEST_RAM // _MEBIBYTE}M")
    return MachineOptions(ram_bytes=ram)


class Machine:
    """The machine with these options, running or not. `folder` holds its state: run/NAME below `cache`.

    Args:
        cache: folder with the image.
    """

    def __init__(self, cache: Path, options: MachineOptions | None = None) -> None:
        self.options = options or MachineOptions()
        self._cache = cache.resolve()
        self.folder = self._cache / "run" / self.options.name

    def find(self) -> MachineState | None:
        """The running machine; None when none is."""
        try:
            state = MachineState.load(self.folder / "state.json")
        except FileFormatError:
            return None
        return state if _process_of(state) else None

    def check(self) -> Image:
        """The image that it boots from.

        Raises:
            DeviceError: QEMU or the image is missing, with the remedy.
        """
        if shutil.which(QEMU) is None:
            raise DeviceError(f"{QEMU} is missing; install it with: make emulator (Debian package qemu-system-arm)")
        image = find_image(self._cache)
        if image is None or not is_current(image, self._cache):
            raise DeviceError(f"{image_folder(self._cache)}: no image of this version; build it with: make emulator")
        return image

    def start(self) -> MachineState:
        """Start it, or find it running, and wait until its adbd answers. Safe to call from several processes.

        Raises:
            DeviceError: QEMU or the image is missing, or it does not start.
        """
        image = self.check()
        with locked(self.folder / "lock", "another process is starting or stopping the emulated phone"):
            state = self.find()
            if state is not None and state.image != image.inputs:
                self._stop(state)
                state = None
            if state is None:
                state = self._launch(image)
            self._wait_until_ready(state)
            return state

    def stop(self) -> bool:
        """Stop it; False when none was running."""
        with locked(self.folder / "lock", "another process is starting or stopping the emulated phone"):
            state = self.find()
            if state is not None:
                self._stop(state)
            else:
                self._remove_leftovers()
            return state is not None

    def _launch(self, image: Image) -> MachineState:
        self._remove_leftovers()
        disk = self.folder / "disk"
        with disk.open("wb") as stream:
            stream.truncate(_DISK_BYTES)
        for attempt in range(_PORT_ATTEMPTS):
            port = _free_port()
            done = subprocess.run(self._command(port), capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                break
            said = done.stderr.strip()[-1000:]
            # between asking for a free port and using it another process may have taken it
            if "forwarding rule" not in said or attempt == _PORT_ATTEMPTS - 1:
                raise DeviceError(f"{QEMU} did not start: {said}")
        # QEMU holds it open: its space is free again however QEMU ends
        disk.unlink()
        process = psutil.Process(int((self.folder / "process").read_text()))
        state = MachineState(
            process=process.pid,
            process_started=process.create_time(),
            port=port,
            adb_server_port=_free_port(),
            options=self.options,
            image=image.inputs,
            emulator_version=_emulator_version(),
        )
        state.save(self.folder / "state.json")
        return state

    def _command(self, port: int) -> list[str]:
        image, folder = image_folder(self._cache), self.folder
        network = f"user,id=network,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:5555"
        return [
            *(QEMU, "-machine", "virt", "-cpu", "cortex-a76", "-m", f"{self.options.ram_bytes // _MEBIBYTE}M"),
            *("-icount", "shift=0", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(image / "kernel"), "-initrd", str(image / "initramfs"), "-append", _KERNEL_COMMAND),
            *("-serial", f"file:{folder / 'console.log'}"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=network,romfile="),
            *("-drive", f"file={folder / 'disk'},format=raw,if=none,id=disk,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *("-daemonize", "-pidfile", str(folder / "process")),
        ]

    def _wait_until_ready(self, state: MachineState) -> None:
        console, end = self.folder / "console.log", time.monotonic() + _BOOT_SECONDS
        while "phonefit: ready" not in (text := console.read_text(errors="replace")):
            if _process_of(state) is None:
                raise DeviceError(f"the emulated phone ended while starting; its last words:\n{text[-1500:].strip()}")
            if time.monotonic() > end:
                self._stop(state)
                last = text[-1500:].strip()
                raise DeviceError(
                    f"the emulated phone was not ready after {_BOOT_SECONDS:g} s; its last words:\n{last}"
                )
            time.sleep(0.1)
        adb = adb_of(state)
        if adb.state() != "device":
            adb.server.connect(state.serial)
            if not adb.wait_until_usable(30.0):
                raise DeviceError(
                    f"the emulated phone runs, but adb calls {state.serial} {adb.state()}; "
                    "stop it with `python -m phonefit.device_bench.emulator stop` and try again"
                )

    def _stop(self, state: MachineState) -> None:
        process = _process_of(state)
        if process is not None:
            with contextlib.suppress(DeviceError):
                adb_of(state).shell(["poweroff", "-f"], timeout_seconds=_POWER_OFF_SECONDS)
            _end(process, _POWER_OFF_SECONDS)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """End the adb server of a machine that is no more, and a QEMU that was started but not written down."""
        with contextlib.suppress(FileFormatError, DeviceError):
            adb_of(MachineState.load(self.folder / "state.json")).server.stop()
        pid_file = self.folder / "process"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(pid_file.read_text()))
            if str(pid_file) in process.cmdline():
                _end(process, 0)
        for name in ("process", "console.log", "disk", "state.json", "runners.journal"):
            (self.folder / name).unlink(missing_ok=True)


def adb_of(state: MachineState) -> Adb:
    """The machine as an adb device, on its own server."""
    environment = {**os.environ, "ADB_USB": "0", "ADB_MDNS": "0", "ADB_EMU": "0"}
    return Adb(state.serial, AdbServer(state.adb_server_port, environment=environment))


def _process_of(state: MachineState) -> psutil.Process | None:
    """The process of a state, if it still runs."""
    try:
        process = psutil.Process(state.process)
        ours = abs(process.create_time() - state.process_started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if ours else None


def _end(process: psutil.Process, patience_seconds: float) -> None:
    """Wait for a process to end, then ask it to, then end it."""
    for action, seconds in ((None, patience_seconds), (signal.SIGTERM, _TERMINATE_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if action is not None:
                process.send_signal(action)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(seconds)
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _emulator_version() -> str:
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\S+)", done.stdout)
    return found[1] if found else "unknown"
