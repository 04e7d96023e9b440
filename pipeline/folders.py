"""Folders that several processes share: locks between them, and replacing a folder as a whole."""

import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from phonefit.device_bench.turns import resting

_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux; RENAME_SWAP of macOS is 2 as well


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock; waits for other processes. The kernel drops it when its process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with resting():  # who holds it may wait to measure alone
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> TextIOWrapper | None:
    """The open lock file, which holds the lock until it is closed; None when another process has it.

    A free lock of something that was running says that its process was killed.
    """
    handle = path.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` at the end.

    A kill at any time leaves the old content or the new one, whole. One process at a time: hold a lock meanwhile.
    """
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # killed where folders cannot be exchanged
        old.rename(folder)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        sync_files(new)
        if not folder.exists():
            new.rename(folder)
        elif not exchange(new, folder):
            folder.rename(old)
            new.rename(folder)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot.

    renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    library = ctypes.CDLL(None)
    places = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        return hasattr(library, "renamex_np") and library.renamex_np(*places, _EXCHANGE) == 0
    if not hasattr(library, "renameat2"):
        return False
    failed: int = library.renameat2(_CURRENT_FOLDER, places[0], _CURRENT_FOLDER, places[1], _EXCHANGE)
    return failed == 0


def sync_files(folder: Path) -> dict[str, int]:
    """Flush every file to disk; returns path inside `folder` -> bytes."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes
