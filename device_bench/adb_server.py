"""The adb server on this machine: starting it, what is attached to it, choosing a device."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import adbutils
from adbutils.errors import AdbError

from phonefit.device_bench.adb_errors import cause_of, message, remedy_for, state_remedy
from phonefit.device_bench.device import DeviceError

_HOST = "127.0.0.1"
_DEFAULT_PORT = 5037
_START_SECONDS = 20.0


@dataclass(frozen=True)
class Attached:
    """One line of `adb devices -l`.

    Attributes:
        state: "device" when it can be used; else "unauthorized", "offline", "no permissions", …
        tags: what adb itself knows: model, product, transport_id.
    """

    serial: str
    state: str
    tags: Mapping[str, str]


class AdbServer:
    """The adb server on this machine, started when it does not run.

    Args:
        port: of the server; None is ANDROID_ADB_SERVER_PORT or 5037, where a person's own adb works, too.
        binary: the adb program; None is the one on PATH, or else the one that comes with adbutils.
        environment: of a server that is started here; None is this process's own.
    """

    def __init__(
        self, port: int | None = None, binary: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port or int(os.environ.get("ANDROID_ADB_SERVER_PORT", _DEFAULT_PORT))
        self._binary = binary
        self._environment = environment

    def devices(self) -> tuple[Attached, ...]:
        """What is attached, in any state.

        Raises:
            DeviceError: there is no adb program, or its server does not start.
        """
        try:
            found = self.client().list(extended=True)
        except (AdbError, OSError) as error:
            raise self._broken("adb devices -l", error) from None
        # adbutils splits at spaces: "no permissions (…)" arrives as "no"
        return tuple(
            Attached(item.serial, "no permissions" if item.state == "no" else item.state, dict(item.tags))
            for item in found
        )

    def choose(self, serial: str | None) -> str:
        """The serial to use: the one asked for, or the only one attached.

        Raises:
            DeviceError: nothing is attached, several are and none was named, or it is not in a usable state.
        """
        found = self.devices()
        if not found:
            raise DeviceError(message("adb devices", "no device is attached", remedy_for("not found")))
        listing = ", ".join(f"{item.serial} ({item.state})" for item in found)
        if serial is None and len(found) > 1:
            raise DeviceError(f"several devices are attached, say which: adb:SERIAL with one of: {listing}")
        match = [item for item in found if serial in (None, item.serial)]
        if not match:
            cause = f"no device with serial {serial}; attached: {listing}"
            raise DeviceError(message("adb devices", cause, remedy_for("not found")))
        if match[0].state != "device":
            cause = f"{match[0].serial} is {match[0].state}"
            raise DeviceError(message("adb devices", cause, state_remedy(match[0].state)))
        return match[0].serial

    def connect(self, address: str, timeout_seconds: float = 15.0) -> str:
        """Attach a device that listens on TCP, and return its serial, which is the address HOST:PORT.

        Raises:
            DeviceError: nothing usable answers there.
        """
        try:
            answer = str(self.client().connect(address, timeout=timeout_seconds))
        except (AdbError, OSError) as error:
            raise self._broken(f"adb connect {address}", error) from None
        if "connected to" not in answer:
            raise DeviceError(message(f"adb connect {address}", answer, remedy_for(answer)))
        return address

    def disconnect(self, address: str) -> None:
        """Detach a device that was attached with `connect`; nothing happens when it is not."""
        with contextlib.suppress(AdbError, OSError):
            self.client().disconnect(address)

    def stop(self) -> None:
        """End the server. Only for one that was started for a purpose of its own, never on the usual port."""
        if self._answers():
            subprocess.run([self.binary(), "-P", str(self.port), "kill-server"], capture_output=True, check=False)

    def client(self) -> adbutils.AdbClient:
        """adbutils' client of this server, which runs when this returns."""
        if not self._answers():
            self._start()
        return adbutils.AdbClient(host=_HOST, port=self.port)

    def binary(self) -> str:
        """Path of the adb program.

        Raises:
            DeviceError: there is none.
        """
        try:
            return self._binary or str(adbutils.adb_path())
        except AdbError as error:
            raise DeviceError(f"no adb program: {error}; install adbutils anew, or adb itself") from None

    def version(self) -> str:
        """Version of the adb program, as it says itself; starts no server.

        Raises:
            DeviceError: there is none, or it does not run.
        """
        command = [self.binary(), "version"]
        remedy = "install adb, or take its path out of ADBUTILS_ADB_PATH"
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(message(shlex.join(command), cause_of(error), remedy)) from None
        found = re.search(r"^Version (\S+)", done.stdout, re.MULTILINE)
        if done.returncode != 0 or found is None:
            said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
            raise DeviceError(message(shlex.join(command), said, remedy))
        return found[1]

    def program(self, serial: str, *arguments: str) -> list[str]:
        """A command line of the adb program for one device."""
        return [self.binary(), "-P", str(self.port), "-s", serial, *arguments]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((_HOST, self.port)) == 0

    def _start(self) -> None:
        command = [self.binary(), "-P", str(self.port), "start-server"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_START_SECONDS, check=False, env=self._environment
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._broken(shlex.join(command), error) from None
        if done.returncode != 0:
            raise self._broken(shlex.join(command), RuntimeError(done.stderr.strip() or done.stdout.strip()))

    def _broken(self, command: str, error: Exception) -> DeviceError:
        remedy = f"see whether another program holds port {self.port}, then `adb kill-server` and try again"
        return DeviceError(message(command, f"the adb server does not answer: {cause_of(error)}", remedy))
