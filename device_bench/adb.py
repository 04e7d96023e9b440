"""One device through adb: commands, copies, waiting. With `adb_server` the only file that talks to adb.

Lists, connections and shells go through adbutils; copies go through the adb program, which knows every version of the
copying protocol and says why a device refused a file. Commands are lists of arguments: quoting happens here alone.
"""

import contextlib
import hashlib
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adbutils.errors import AdbError

from phonefit.device_bench.adb_errors import (
    AdbCommandError,
    AdbTimeoutError,
    ConnectionLostError,
    NotAttachedError,
    cause_of,
    message,
    remedy_for,
    state_remedy,
)
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.parsers import ParseError, parse_df
from phonefit.models.record import file_digest

# Ids of the shell protocol, version 2 (AOSP, packages/modules/adb/shell_protocol.h).
_STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 1, 2, 3, 4
# Copies run at 5 MB/s over the slowest cables; below a fifth of that something is wrong.
_COPY_SECONDS, _SLOWEST_BYTES_PER_SECOND = 30.0, 1_000_000
# After `sh` itself: a program that is missing, or that may not be run.
_NOT_RUNNABLE = 126, 127
_DIGESTS = (("sha256sum",), "sha256"), (("toybox", "sha256sum"), "sha256"), (("md5sum",), "md5")


@dataclass(frozen=True)
class ShellResult:
    """What a command on the device gave. Ended by a signal: exit_code is 128 + its number."""

    exit_code: int
    stdout: str
    stderr: str


class _Stream(Protocol):
    """The part of adbutils' connection that is used here."""

    conn: socket.socket

    def read_exact(self, n: int) -> bytes: ...
    def close(self) -> None: ...


class Adb:
    """One device, named by its serial."""

    def __init__(self, serial: str, server: AdbServer | None = None) -> None:
        self.serial = serial
        self.server = server or AdbServer()
        self._digest_tool: tuple[tuple[str, ...], str] | None = None

    def state(self) -> str:
        """State as in `adb devices`; "absent" when the device is not in its list."""
        return next((item.state for item in self.server.devices() if item.serial == self.serial), "absent")

    def shell(self, command: Sequence[str], *, timeout_seconds: float = 30.0, check: bool = False) -> ShellResult:
        """Run a program on the device and wait for its end.

        Args:
            command: program and arguments; nothing in them is special to the shell.
            timeout_seconds: after it the program and its children are killed on the device.
            check: raise unless it exits with 0.

        Raises:
            DeviceError: the device is not usable, or `check` and another exit status.
            AdbTimeoutError: it took too long.
            ConnectionLostError: the device went away before the program's end.
        """
        text = f"adb -s {self.serial} shell {shlex.join(command)}"
        collected = _Collected()
        deadline = time.monotonic() + timeout_seconds
        stream: _Stream | None = None
        try:
            stream = self._open_shell(command, timeout_seconds)
            exit_code = collected.read_to_exit(stream, deadline)
        except TimeoutError:
            outcome = self._kill(collected.pid())
            cause = f"no end after {timeout_seconds:g} s; {outcome}{collected.tail()}"
            raise AdbTimeoutError(message(text, cause, "allow more time, or ask for less work")) from None
        except (AdbError, OSError, EOFError) as error:
            raise self._lost(text, error, begun=collected.pid() is not None, tail=collected.tail()) from None
        except BaseException:
            # interrupted: nothing may go on behind one's back
            self._kill(collected.pid())
            raise
        finally:
            if stream is not None:
                stream.close()
        result = ShellResult(exit_code, collected.output(), collected.errors())
        if check and exit_code != 0:
            said = (result.stderr.strip() or result.stdout.strip() or "it said nothing")[-500:]
            raise AdbCommandError(message(text, f"exit status {exit_code}: {said}", remedy_for(said)))
        return result

    def digests(self, paths: Sequence[str]) -> dict[str, str]:
        """Digests of files on the device as "sha256:…" or "md5:…", without those that are missing.

        Empty, too, where the device has no program for it: then `push_all` fetches what it sent and compares.
        """
        for tool, name in _DIGESTS if self._digest_tool is None else (self._digest_tool,):
            result = self.shell([*tool, *paths], timeout_seconds=_COPY_SECONDS * (1 + len(paths)))
            if result.exit_code in _NOT_RUNNABLE or "nknown command" in result.stderr:
                continue
            self._digest_tool = (tool, name)
            lines = (line.split(maxsplit=1) for line in result.stdout.splitlines())
            return {path: f"{name}:{digest}" for digest, path in lines}
        return {}

    def push(self, source: Path, target: str, *, executable: bool = False) -> bool:
        """Copy one file to the device as `push_all` does; False when it was there already."""
        return bool(self.push_all({target: source}, executable=executable))

    def push_all(self, files: Mapping[str, Path], *, executable: bool = False) -> tuple[str, ...]:
        """Copy files to the device, but those whose content is there already, and check what arrived.

        Args:
            files: path on the device, in a folder that exists -> file here.
            executable: whether they are programs.

        Returns:
            The paths on the device that were copied.

        Raises:
            DeviceError: the device refused it, for example for want of space.
            AdbTimeoutError: it took far too long.
            ConnectionLostError: the device went away; part of a file may be there.
        """
        there = self.digests(list(files))
        missing = {target: source for target, source in files.items() if not same_content(source, there.get(target))}
        for folder, sources in _by_folder(missing).items():
            command = self.server.program(self.serial, "push", *map(str, sources), folder)
            self._copy(command, sum(source.stat().st_size for source in sources), folder)
        if not missing:
            return ()
        if executable:
            self.shell(["chmod", "755", *missing], check=True)
        arrived = self.digests(list(missing))
        for target, source in missing.items():
            if not (
                same_content(source, arrived[target]) if target in arrived else self._same_when_pulled(source, target)
            ):
                cause = "what arrived is not what was sent"
                raise AdbCommandError(message(f"adb push {source} {target}", cause, "try another cable or port"))
        return tuple(missing)

    def install(self, apk: Path, options: Sequence[str]) -> ShellResult:
        """What `adb install` gives for an APK; a device that refuses it says so in what is printed.

        Raises:
            AdbTimeoutError: it took far too long.
        """
        done = self._transfer(self.server.program(self.serial, "install", *options, str(apk)), apk.stat().st_size)
        return ShellResult(done.returncode, done.stdout, done.stderr)

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the device; `target` appears only when all of it has arrived.

        Raises:
            DeviceError: the device has no such file or may not read it.
            AdbTimeoutError, ConnectionLostError: as in `push_all`.
        """
        part = target.with_name(f".{target.name}.part")
        command = self.server.program(self.serial, "pull", source, str(part))
        try:
            self._copy(command, 0, source)
            expected = self.digests([source])
            if expected and not same_content(part, expected[source]):
                cause = "what arrived is not what the device holds"
                raise AdbCommandError(message(_spoken(command), cause, "try again; try another cable or port"))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def free_bytes(self, folder: str) -> int | None:
        """Free space of the file system that holds a folder; None when the device does not tell."""
        try:
            systems = parse_df(self.shell(["df", "-k", folder]).stdout)
        except ParseError:
            return None
        return systems[-1].available_bytes if systems else None

    def wait_until_usable(self, timeout_seconds: float) -> bool:
        """Wait for the device to come (back); False when it did not within the time."""
        try:
            self.server.client().wait_for(self.serial, state="device", timeout=timeout_seconds)
        except (AdbError, OSError, EOFError):
            return False
        return True

    def _same_when_pulled(self, source: Path, target: str) -> bool:
        copy = source.with_name(f".{source.name}.{os.getpid()}.back")
        try:
            self._copy(self.server.program(self.serial, "pull", target, str(copy)), source.stat().st_size, target)
            return file_digest(copy) == file_digest(source)
        finally:
            copy.unlink(missing_ok=True)

    def _copy(self, command: list[str], size: int, remote: str) -> None:
        text, done = _spoken(command), self._transfer(command, size)
        if done.returncode == 0:
            return
        said = _complaint(done.stderr.strip() or done.stdout.strip())
        if "No space left" in said:
            raise AdbCommandError(message(text, said, self._space_remedy(size, remote)))
        if "remote " in said or "failed to stat" in said or "does not exist" in said:
            raise AdbCommandError(message(text, said, remedy_for(said)))
        raise self._lost(text, OSError(said), begun=True)

    def _transfer(self, command: list[str], size: int) -> subprocess.CompletedProcess[str]:
        """Run the adb program for as long as so many bytes may take."""
        limit = _copy_seconds(size)
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            cause = f"no end after {limit:g} s for {size:,} bytes"
            raise AdbTimeoutError(message(_spoken(command), cause, "try another cable or port")) from None

    def _space_remedy(self, size: int, remote: str) -> str:
        free = self.free_bytes(remote.rpartition("/")[0] or "/")
        if free is None:
            return f"free at least {size:,} bytes on the device"
        missing = max(size - free, 1)
        return f"{size:,} bytes are needed, {free:,} are free; free at least {missing:,} more on the device"

    def _open_shell(self, command: Sequence[str], timeout_seconds: float) -> _Stream:
        device = self.server.client().device(self.serial)
        stream: _Stream = device.open_transport(timeout=timeout_seconds)
        # `exec` makes the program inherit the shell's process id, which the first line tells
        line = f"shell,v2,raw:echo $$; exec {shlex.join(command)}".encode()
        stream.conn.sendall(b"%04x" % len(line) + line)
        if stream.read_exact(4) != b"OKAY":
            size = int(stream.read_exact(4), 16)
            raise AdbError(stream.read_exact(size).decode(errors="replace"))
        stream.conn.sendall(bytes((_CLOSE_STDIN, 0, 0, 0, 0)))
        return stream

    def _kill(self, pid: int | None) -> str:
        """Kill a program and its children, as far as the device still listens; says what came of it."""
        if pid is None:
            return "it had not begun"
        with contextlib.suppress(DeviceError):
            self.shell(["sh", "-c", f"kill -9 -{pid} 2>/dev/null || kill -9 {pid}"], timeout_seconds=5.0)
            return "it was killed"
        return f"process {pid} of the device may still run"

    def _lost(self, text: str, error: Exception, *, begun: bool, tail: str = "") -> DeviceError:
        # the rest of adb's words repeats, longer, what the remedy says
        cause, state = cause_of(error).splitlines()[0], self.state()
        if not begun and state != "device":
            absent = "not attached any more" if state == "absent" else state
            return NotAttachedError(message(text, f"{self.serial} is {absent} ({cause})", state_remedy(state)))
        if not begun and "closed" in cause:
            cause = f"{cause}; the device may be older than Android 7, which cannot tell a program's exit status"
        where = f"; the device is now {state}" if state != "device" else ""
        remedy = "plug it in again and run the same command: what was left on it is removed first"
        return ConnectionLostError(message(text, f"the connection broke: {cause}{where}{tail}", remedy))


class _Collected:
    """What a program has said so far, its first line being its process id."""

    def __init__(self) -> None:
        self._parts: dict[int, bytearray] = {_STDOUT: bytearray(), _STDERR: bytearray()}

    def read_to_exit(self, stream: _Stream, deadline: float) -> int:
        """Read packets up to the one with the exit status."""
        while True:
            header = self._read(stream, 5, deadline)
            kind, size = header[0], int.from_bytes(header[1:], "little")
            data = self._read(stream, size, deadline) if size else b""
            if kind == _EXIT:
                return data[0]
            self._parts.setdefault(kind, bytearray()).extend(data)

    def _read(self, stream: _Stream, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            stream.conn.settimeout(left)
            chunk = stream.conn.recv(size - len(data))
            if not chunk:
                raise EOFError("the reply ended before the program's exit status")
            data.extend(chunk)
        return bytes(data)

    def pid(self) -> int | None:
        """Process id on the device; None as long as the program has not begun."""
        line, newline, _ = bytes(self._parts[_STDOUT]).partition(b"\n")
        return int(line) if newline and line.strip().isdigit() else None

    def output(self) -> str:
        """Standard output after the line with the process id."""
        return bytes(self._parts[_STDOUT]).partition(b"\n")[2].decode(errors="replace")

    def errors(self) -> str:
        """Standard error."""
        return self._parts[_STDERR].decode(errors="replace")

    def tail(self) -> str:
        """The last words, for a message."""
        said = (self.errors().strip() or self.output().strip())[-500:]
        return f"; its last words:\n{said}\n" if said else ""


def _spoken(command: Sequence[str]) -> str:
    """A command line of the adb program as a person would type it."""
    return shlex.join(["adb", *command[3:]])


def _complaint(said: str) -> str:
    """What adb complains of: copies begin with a line on their speed, also when they fail."""
    errors = [line.removeprefix("adb: error: ") for line in said.splitlines() if line.startswith("adb: error: ")]
    return "; ".join(errors) or said


def _copy_seconds(size: int) -> float:
    return _COPY_SECONDS + size / _SLOWEST_BYTES_PER_SECOND


def same_content(path: Path, digest: str | None) -> bool:
    """Whether a file here has a digest that `Adb.digests` gave; None is that of a file that is not there."""
    if digest is None:
        return False
    name, _, value = digest.partition(":")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, name).hexdigest() == value


def _by_folder(files: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Target of a copy -> its sources: files that keep their names go to a folder together, others alone."""
    groups: dict[str, list[Path]] = {}
    for target, source in files.items():
        folder, _, name = target.rpartition("/")
        groups.setdefault(f"{folder}/" if source.name == name else target, []).append(source.resolve())
    return groups
