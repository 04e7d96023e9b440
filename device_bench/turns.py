"""Taking turns on one machine: processes that compute give way to one that measures.

Workers of a search compute at the same time, and one that times a model on this machine would time their work too. So
each of them computes under a shared lock, lets go of it between two steps when a measurement waits, and takes it again
when that is over. A measurement holds the lock alone. The kernel drops the locks of a process that dies.

    phonefit-UID.turns      shared by those who compute, exclusive to the one that measures
    phonefit-UID.measuring  held from the wish to measure until the end: who computes looks here
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

# Of this process, while it is a worker: the file whose lock it shares.
_turn: ContextVar[IO[str] | None] = ContextVar("turn", default=None)


@contextmanager
def taking_turns() -> Iterator[None]:
    """Compute as one of several workers; waits for a measurement that goes on."""
    with _file("turns") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        token = _turn.set(handle)
        try:
            yield
        finally:
            _turn.reset(token)


def takes_turns() -> bool:
    """Whether this process is one of several workers."""
    return _turn.get() is not None


def give_way() -> None:
    """Let a measurement that waits go first. Workers call it between the steps of their work; it takes some 20 us."""
    with _file("measuring") as wish:
        try:
            fcntl.flock(wish, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with resting():
                fcntl.flock(wish, fcntl.LOCK_SH)
                # or the next one that wishes to measure would wait for this process, which waits for it in `resting`
                fcntl.flock(wish, fcntl.LOCK_UN)


@contextmanager
def resting() -> Iterator[None]:
    """Let go of the shared lock while waiting for something that another worker may hold."""
    handle = _turn.get()
    if handle is None:
        yield
        return
    fcntl.flock(handle, fcntl.LOCK_UN)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_SH)


@contextmanager
def alone() -> Iterator[None]:
    """Measure on this machine: waits until no worker computes and nobody else measures."""
    with resting(), _file("measuring") as wish, _file("turns") as turns:
        fcntl.flock(wish, fcntl.LOCK_EX)
        fcntl.flock(turns, fcntl.LOCK_EX)
        yield


def _file(name: str) -> IO[str]:
    return (Path(tempfile.gettempdir()) / f"phonefit-{os.getuid()}.{name}").open("a")
