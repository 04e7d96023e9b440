"""The file system that the guest boots from: files taken out of Debian packages, written as a cpio archive.

The archive (format "newc", linux/Documentation/driver-api/early-userspace/buffer-format.rst) is written here rather
than by cpio, so that the same files give the same bytes: sorted, with times and owners of zero. It is not compressed:
the guest would have to unpack it with an emulated processor.
"""

import io
import lzma
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from phonefit.device_bench.device import DeviceError

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One name of the file system.

    Attributes:
        mode: type and permissions, as in `stat.st_mode`.
        data: the content of a file, the target of a link, nothing for a folder.
    """

    mode: int
    data: bytes = b""


def folder() -> Entry:
    """A folder that everybody may read."""
    return Entry(stat.S_IFDIR | 0o755)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def text_file(text: str, *, executable: bool = False) -> Entry:
    """A file that everybody may read."""
    return Entry(stat.S_IFREG | (0o755 if executable else 0o644), text.encode())


def cpio(entries: Mapping[str, Entry]) -> bytes:
    """The archive of these entries, by name without a leading slash; folders above a name are added.

    The same entries give the same bytes, in whatever order they are.
    """
    parents = {str(parent) for name in entries for parent in PurePosixPath(name).parents if str(parent) != "."}
    every = {name: folder() for name in parents} | dict(entries)
    archive = io.BytesIO()
    for number, name in enumerate(sorted(every), start=1):
        _write(archive, number, name, every[name])
    _write(archive, 0, _TRAILER, Entry(0))
    return archive.getvalue()


def _write(archive: io.BytesIO, number: int, name: str, entry: Entry) -> None:
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, user, group, links, time, size, device and special device (major, minor), name's length, checksum
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(path), 0)
    for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + path, entry.data):
        archive.write(part)
        archive.write(b"\0" * (-archive.tell() % 4))


def files_of(package: Path, wanted: re.Pattern[str]) -> dict[str, Entry]:
    """Files and links of a Debian package whose path (without a leading "./") matches `wanted` as a whole.

    Raises:
        DeviceError: not a Debian package, or dpkg-deb is missing.
    """
    try:
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise DeviceError("dpkg-deb is missing: the emulator's image is built from Debian packages") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise DeviceError(f"{package}: not a readable Debian package ({message}); remove it and build again") from None
    found: dict[str, Entry] = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not wanted.fullmatch(name):
                continue
            if member.issym():
                found[name] = link(member.linkname)
            elif member.isfile() or member.islnk():
                content = archive.extractfile(member)
                assert content is not None  # files and hard links have content
                found[name] = Entry(stat.S_IFREG | (member.mode & 0o777), content.read())
    return found


def load_order(modules: Mapping[str, bytes], wanted: Iterable[str]) -> list[str]:
    """The wanted kernel modules with those that they need, each after what it needs.

    Args:
        modules: every loadable module by name, as the kernel package holds it (.ko.xz).
        wanted: names.

    Raises:
        DeviceError: a wanted module is not there.
    """
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in modules:
            raise DeviceError(f"the kernel package has no module {name!r}; it holds {len(modules)} others")
        for needed in depends(lzma.decompress(modules[name])):
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def depends(module: bytes) -> list[str]:
    """Names of the modules that a kernel module (.ko) needs, from the "depends" of its .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []
