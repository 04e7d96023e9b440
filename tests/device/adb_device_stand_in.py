"""AdbDeviceStandIn: the device end of the adb protocol on 127.0.0.1, for tests with the real adb client.

It is no phone. Files live in a folder of the test; Android's programs (getprop, dumpsys, …) give scripted replies, and
everything else runs in this machine's `sh`, so that quoting, exit codes, signals and kills are real. Faults are methods
and attributes. Protocol: AOSP, packages/modules/adb, protocol.txt, SYNC.TXT and shell_protocol.h.
"""

import contextlib
import itertools
import os
import queue
import shlex
import signal
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

_SYNC, _CNXN, _OPEN, _OKAY, _CLSE, _WRTE, _AUTH = (
    int.from_bytes(name, "little") for name in (b"SYNC", b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE", b"AUTH")
)
_VERSION, _LARGEST_PAYLOAD = 0x01000001, 256 * 1024
_TOKEN = 1
_STDOUT, _STDERR, _EXIT = 1, 2, 3
# Larger than any process id that Linux gives out: a kill that is aimed at it meets nobody.
_NO_PROCESS = 9_999_999
WORK = "/data/local/tmp"
# Folders of the device that lie below the folder of the test, also for what runs in this machine's `sh`.
_MAPPED = (WORK, "/sys/class/power_supply", "/data/misc/perfetto-traces")
# Programs put there are found by what runs in this machine's `sh`.
PROGRAMS = "/system/bin"
_ANDROIDS_OWN = ("getprop", "dumpsys", "cmd", "svc", "settings", "am", "input", "wm", "logcat")
_PREFIX = "echo $$; exec "

# A scripted reply: text, or what makes (exit code, text) of the arguments.
Reply = str | Callable[[list[str]], tuple[int, str]]


class AdbDeviceStandIn:
    """One device; as a context manager it listens until the end of the block.

    Attributes:
        replies: command line or its first word -> scripted reply; looked up before anything runs.
        commands: every command line that came, in order, without the shell's own prefix.
        settings: what `settings get global NAME` reads and `settings put global NAME` writes.
        free_bytes: how much more can be written; None is no limit.
        drop_push_after: unplug itself after so many bytes of a push.
        truncate: command lines that contain this lose their end, exit status included.
        authorised: whether the host's key is accepted.
        answering: whether a new connection gets an answer.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.local(WORK).mkdir(parents=True, exist_ok=True)
        self.replies: dict[str, Reply] = {}
        self.commands: list[str] = []
        self.settings: dict[str, str] = {}
        self.free_bytes: int | None = None
        self.drop_push_after: int | None = None
        self.truncate: str | None = None
        self.authorised = True
        self.answering = True
        self.pushes: list[str] = []
        self.boots = 1
        self._connections: set[_Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "AdbDeviceStandIn":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.unplug()

    @property
    def serial(self) -> str:
        """The name that the adb server gives it."""
        return f"127.0.0.1:{self.port}"

    def local(self, path: str) -> Path:
        """Where a path of the device lies here."""
        return self.root / path.lstrip("/")

    def files(self) -> list[str]:
        """Everything below the folder that a shell may write, sorted."""
        base = self.local(WORK)
        return sorted(str(path.relative_to(base)) for path in base.rglob("*"))

    def unplug(self) -> None:
        """Every connection breaks; programs lose their terminal, as under adbd."""
        for connection in list(self._connections):
            connection.close()

    def reboot(self) -> None:
        """Every connection breaks, every program ends, and the device comes back with another boot id."""
        for connection in list(self._connections):
            connection.close(signal.SIGKILL)
        self.boots += 1

    def reply(self, arguments: list[str]) -> tuple[int, str] | None:
        """Scripted reply to a command; None when it is to be run."""
        line = shlex.join(arguments)
        found = self.replies.get(line, self.replies.get(arguments[0]))
        if found is not None:
            return (0, found) if isinstance(found, str) else found(arguments)
        if arguments[0] == "settings":
            return self._settings(arguments[1:])
        if arguments[:2] == ["cat", "/proc/sys/kernel/random/boot_id"]:
            return 0, f"00000000-0000-4000-8000-{self.boots:012d}\n"
        if arguments[0] == "df" and self.free_bytes is not None:
            free = self.free_bytes // 1024
            head = "Filesystem       1K-blocks     Used Available Use% Mounted on\n"
            return 0, f"{head}/dev/block/dm-44 113244160 {113244160 - free} {free}  99% /data\n"
        if arguments[0] in _ANDROIDS_OWN:
            return 127, f"/system/bin/sh: {arguments[0]}: inaccessible or not found\n"
        return None

    def _settings(self, arguments: list[str]) -> tuple[int, str]:
        match arguments:
            case ["get", "global", name]:
                return 0, self.settings.get(name, "null") + "\n"
            case ["put", "global", name, value]:
                self.settings[name] = value
                return 0, ""
            case ["delete", "global", name]:
                return 0, f"Deleted {int(self.settings.pop(name, None) is not None)} rows\n"
        return 255, "Invalid command\n"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = _Connection(self, peer)
                self._connections.add(connection)
                threading.Thread(target=connection.serve, daemon=True).start()

    def forget(self, connection: "_Connection") -> None:
        """A connection that has ended."""
        self._connections.discard(connection)


class _Connection:
    """One connection of an adb server."""

    def __init__(self, device: AdbDeviceStandIn, peer: socket.socket) -> None:
        self.device, self.peer = device, peer
        self.streams: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)  # none twice: the thread of an ended stream still removes its number
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Answer messages until the connection ends."""
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._receive(24))
                self._handle(command, first, second, self._receive(size))
        except OSError:
            self.close()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """Send one message."""
        head = struct.pack("<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF)
        with self._sending:
            self.peer.sendall(head + data)

    def close(self, end: int = signal.SIGHUP) -> None:
        """Break the connection; running programs get a signal."""
        self.device.forget(self)
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_RDWR)
        self.peer.close()
        for stream in list(self.streams.values()):
            stream.end(end)

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self.peer.recv(size - len(data))
            if not chunk:
                raise ConnectionError("the host went away")
            data.extend(chunk)
        return bytes(data)

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == _CNXN and self.device.answering:
            self._greet()
        elif command == _AUTH and not self.device.authorised and first != 3:
            self.send(_AUTH, _TOKEN, 0, bytes(20))
        elif command == _OPEN:
            number = next(self._numbers)
            stream = self.streams[number] = _Stream(self, number, first)
            self.send(_OKAY, number, first)
            threading.Thread(target=stream.serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == _WRTE and second in self.streams:
            self.streams[second].incoming.put(data)
            self.send(_OKAY, second, first)
        elif command == _OKAY and second in self.streams:
            self.streams[second].may_send.release()
        elif command == _CLSE and second in self.streams:
            self.streams.pop(second).end(signal.SIGHUP)

    def _greet(self) -> None:
        if self.device.authorised:
            banner = b"device::ro.product.name=stand_in;ro.product.model=StandIn;features=shell_v2,cmd"
            self.send(_CNXN, _VERSION, _LARGEST_PAYLOAD, banner)
        else:
            self.send(_AUTH, _TOKEN, 0, bytes(20))


class _Stream:
    """One service that the host has opened: a shell or a copy."""

    def __init__(self, connection: _Connection, number: int, peer: int) -> None:
        self.connection, self.number, self.peer = connection, number, peer
        self.incoming: queue.Queue[bytes | None] = queue.Queue()
        self.may_send = threading.Semaphore(1)
        self._buffer = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def serve(self, service: str) -> None:
        """Run the service and close the stream."""
        with contextlib.suppress(OSError, EOFError):
            if service == "sync:":
                self._sync()
            elif service.startswith("shell,v2"):
                self._shell(service.partition(":")[2])
            elif service.startswith("exec:"):
                self._exec(service.partition(":")[2])
            self.connection.send(_CLSE, self.number, self.peer)
        self.connection.streams.pop(self.number, None)

    def end(self, how: int) -> None:
        """The host has gone: adbd signals the program that it started."""
        self._ended = True
        self.incoming.put(None)
        self.may_send.release()
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if how == signal.SIGKILL:
                    os.killpg(self._process.pid, how)
                else:
                    self._process.send_signal(how)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), _LARGEST_PAYLOAD):
            self.may_send.acquire()
            if self._ended:
                raise EOFError
            self.connection.send(_WRTE, self.number, self.peer, data[start : start + _LARGEST_PAYLOAD])

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self.incoming.get()
            if chunk is None:
                raise EOFError
            self._buffer.extend(chunk)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _shell(self, line: str) -> None:
        device = self.connection.device
        bare = line.removeprefix(_PREFIX)
        device.commands.append(bare)
        scripted = device.reply(shlex.split(bare))
        if scripted is not None:
            code, text = scripted
            pid = f"{_NO_PROCESS}\n" if line.startswith(_PREFIX) else ""
            self._tell(_STDOUT, (pid + text).encode(), bare)
            if device.truncate is None or device.truncate not in bare:
                self._packet(_EXIT, bytes((code,)))
            return
        here = line
        for folder in _MAPPED:
            here = here.replace(folder, str(device.local(folder)))
        process = self._process = subprocess.Popen(
            ["sh", "-c", here],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PATH": f"{device.local(PROGRAMS)}:{os.environ['PATH']}"},
        )
        pumps = [
            threading.Thread(target=self._pump, args=(kind, pipe, bare), daemon=True)
            for kind, pipe in ((_STDOUT, process.stdout), (_STDERR, process.stderr))
        ]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        code = process.wait()
        if device.truncate is None or device.truncate not in bare:
            self._packet(_EXIT, bytes((code if code >= 0 else 128 - code,)))

    def _exec(self, line: str) -> None:
        """A scripted reply on a bare stream, as to an APK that is streamed to `cmd package install -S SIZE`.

        What is streamed is read first: a host whose stream is closed while it still writes may wait for ever.
        """
        device, words = self.connection.device, shlex.split(line)
        device.commands.append(line)
        if "-S" in words:
            self._read(int(words[words.index("-S") + 1]))
        self._write((device.reply(words) or (127, f"/system/bin/sh: {words[0]}: not found\n"))[1].encode())

    def _pump(self, kind: int, pipe: object, command: str) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := os.read(pipe.fileno(), 65536):  # type: ignore[attr-defined]
                self._tell(kind, data, command)

    def _tell(self, kind: int, data: bytes, command: str) -> None:
        device = self.connection.device
        for folder in _MAPPED:
            data = data.replace(str(device.local(folder)).encode(), folder.encode())
        if device.truncate is not None and device.truncate in command:
            data = data[: len(data) // 2]
        self._packet(kind, data)

    def _packet(self, kind: int, data: bytes) -> None:
        self._write(bytes((kind,)) + struct.pack("<I", len(data)) + data)

    def _sync(self) -> None:
        while True:
            request, size = struct.unpack("<4sI", self._read(8))
            argument = self._read(size).decode() if request != b"QUIT" else ""
            if request == b"STAT":
                self._stat(argument)
            elif request == b"SEND":
                self._receive_file(argument)
            elif request == b"RECV":
                self._send_file(argument)
            else:
                return

    def _stat(self, path: str) -> None:
        values = (0, 0, 0)
        with contextlib.suppress(OSError):
            found = self.connection.device.local(path).stat()
            values = found.st_mode, found.st_size, int(found.st_mtime)
        self._write(struct.pack("<4s3I", b"STAT", *values))

    def _receive_file(self, argument: str) -> None:
        path, _, mode = argument.rpartition(",")
        device, target = self.connection.device, self.connection.device.local(path)
        device.pushes.append(path)
        failure, received = "", 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            while True:
                kind, size = struct.unpack("<4sI", self._read(8))
                if kind == b"DONE":
                    break
                data = self._read(size)
                received += size
                if device.drop_push_after is not None and received > device.drop_push_after:
                    device.drop_push_after = None
                    self.connection.close()
                    raise EOFError
                if device.free_bytes is not None and received > device.free_bytes:
                    failure = "write failed: No space left on device"
                elif not failure:
                    stream.write(data)
        if failure:
            # adbd removes what it could not write in full
            target.unlink()
            self._write(struct.pack("<4sI", b"FAIL", len(failure)) + failure.encode())
            return
        target.chmod(stat.S_IMODE(int(mode)))
        self._write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, path: str) -> None:
        try:
            content = self.connection.device.local(path).read_bytes()
        except OSError as error:
            reason = f"open failed: {error.strerror}"
            self._write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())
            return
        for start in range(0, len(content), 65536):
            chunk = content[start : start + 65536]
            self._write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
        self._write(struct.pack("<4sI", b"DONE", 0))
