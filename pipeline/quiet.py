"""Keeps the noise of converters and native libraries out of the terminal and in the run's log."""

import ctypes
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

_STDOUT, _STDERR = 1, 2


@contextmanager
def captured_output(log: Path, title: str = "output") -> Iterator[None]:
    """Send everything that this process prints, also from C and C++, to the end of `log`.

    File descriptors 1 and 2, `sys.stdout`, `sys.stderr`, warnings and the root logger are redirected, and restored in
    any case. It may be nested: the inner log takes what the inner part prints. It concerns the whole process, so it is
    not for one thread among others. Progress that should stay visible is drawn on a duplicate of the terminal's
    descriptor that was made before.

    Args:
        log: made if missing, with its folder.
        title: for the header line that separates this part of the log.

    Raises:
        OSError: the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as stream, ExitStack() as restore:
        stream.write(f"\n==== {title} {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
        _flush()
        for descriptor in (_STDOUT, _STDERR):
            saved = os.dup(descriptor)
            restore.callback(os.close, saved)
            restore.callback(os.dup2, saved, descriptor)
            os.dup2(stream.fileno(), descriptor)
        # Python's own streams may be replaced by a test runner or a notebook, and then do not write to 1 and 2.
        # These do, and go on working after the end for a handler that a library has made with one of them.
        out, err = _stream(_STDOUT), _stream(_STDERR)
        restore.enter_context(redirect_stdout(out))
        restore.enter_context(redirect_stderr(err))
        restore.enter_context(_root_logger_to(err))
        restore.enter_context(_warnings_to(err))
        restore.callback(_flush)  # runs first: what is buffered still belongs to the log
        yield


def _stream(descriptor: int) -> TextIO:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


@contextmanager
def _root_logger_to(stream: TextIO) -> Iterator[None]:
    """Let the root logger write to `stream` only; handlers that libraries add meanwhile are dropped."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.handlers = [handler]
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


@contextmanager
def _warnings_to(stream: TextIO) -> Iterator[None]:
    """Show warnings on `stream`, also where a test runner or logging collects them."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        stream.write(warnings.formatwarning(message, category, filename, lineno, line))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _flush() -> None:
    """Flush Python's streams and those of the C library."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed:
            stream.flush()
    ctypes.CDLL(None).fflush(None)
