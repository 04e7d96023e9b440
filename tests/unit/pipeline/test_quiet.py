"""What libraries print ends in the log, whatever way they print it."""

import ctypes
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from phonefit.pipeline.quiet import captured_output


def test_every_kind_of_output_goes_to_the_log(tmp_path, capfd):
    log = tmp_path / "logs" / "run.log"
    libc = ctypes.CDLL(None)
    with captured_output(log, "a title"):
        print("from print")
        print("from stderr", file=sys.stderr)
        os.write(1, b"from descriptor 1\n")
        os.write(2, b"from descriptor 2\n")
        libc.puts(b"from C")  # buffered by the C library
        subprocess.run(["echo", "from a child"], check=True)
        logging.getLogger("some.library").warning("from logging")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("from warnings", stacklevel=1)
    print("after")
    text = log.read_text()
    for source in ("print", "stderr", "descriptor 1", "descriptor 2", "C", "a child", "logging", "warnings"):
        assert f"from {source}" in text
    assert "==== a title" in text
    assert "after" not in text
    out, err = capfd.readouterr()
    assert out == "after\n"
    assert err == ""


def test_output_is_restored_after_an_exception(tmp_path, capfd):
    handlers = logging.getLogger().handlers[:]
    streams = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt), captured_output(tmp_path / "log"):
        os.write(1, b"inside\n")
        raise KeyboardInterrupt
    os.write(1, b"outside\n")
    assert capfd.readouterr().out == "outside\n"
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().handlers == handlers
    assert "inside" in (tmp_path / "log").read_text()


def test_nested_capture_returns_to_the_outer_log(tmp_path, capfd):
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    with captured_output(outer):
        os.write(1, b"one\n")
        with captured_output(inner):
            os.write(1, b"two\n")
        os.write(1, b"three\n")
    assert inner.read_text().splitlines()[-1] == "two"
    assert outer.read_text().splitlines()[-2:] == ["one", "three"]
    assert capfd.readouterr() == ("", "")


def test_the_log_grows(tmp_path):
    log = tmp_path / "log"
    for number in range(2):
        with captured_output(log, f"part {number}"):
            os.write(1, b"text\n")
    assert log.read_text().count("text") == 2


def test_no_descriptor_is_leaked(tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        with captured_output(tmp_path / "log"):
            pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_handler_made_inside_works_afterwards(tmp_path, capfd):
    with captured_output(tmp_path / "log"):
        handler = logging.StreamHandler()  # as libraries do when they are imported
    logger = logging.getLogger("made.inside")
    logger.addHandler(handler)
    logger.warning("still heard")
    logger.removeHandler(handler)
    assert "still heard" in capfd.readouterr().err
