"""A lock between processes: one builds or starts, the others wait for it."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phonefit.device_bench.device import DeviceError


@contextmanager
def locked(path: Path, busy: str, patience_seconds: float = 300.0) -> Iterator[None]:
    """Hold the lock file exclusively. The kernel frees it however the holder ends.

    Args:
        path: the lock file, made if it is missing and never removed.
        busy: what the error says when the lock stays taken for `patience_seconds`.

    Raises:
        DeviceError: it stays taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience_seconds
    with path.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise DeviceError(f"{busy} (waited {patience_seconds:g} s for {path})") from None
                time.sleep(0.05)
        yield
