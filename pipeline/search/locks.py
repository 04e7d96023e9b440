"""Locks between processes. The kernel drops a lock when its process dies, so a free lock of a running trial says that
the trial's process was killed.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock; waits for other processes."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> TextIOWrapper | None:
    """The open lock file, which holds the lock until it is closed; None when another process has it."""
    handle = path.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle
