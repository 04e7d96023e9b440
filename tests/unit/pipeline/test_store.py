"""The store: a result is there as a whole or not at all, and is computed once."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phonefit.pipeline.errors import StoreError
from phonefit.pipeline.store import STAGE_FILE, Store


def write(text: str):
    return lambda folder: (folder / "out.txt").write_text(text) and None


def test_same_key_is_computed_once(tmp_path):
    store = Store(tmp_path)
    first = store.compute("stage", {"a": "1"}, {"x": 1}, 1, write("first"))
    second = store.compute("stage", {"a": "1"}, {"x": 1}, 1, write("second"))
    assert (first.reused, second.reused) == (False, True)
    assert (second.path / "out.txt").read_text() == "first"
    assert second.seconds == first.seconds


@pytest.mark.parametrize(
    "change",
    [{"inputs": {"a": "2"}}, {"config": {"x": 2}}, {"code_version": 2}, {"tools": {"torch": "3"}}, {"stage": "other"}],
)
def test_anything_that_shapes_the_result_changes_the_key(tmp_path, change):
    arguments = {"stage": "stage", "inputs": {"a": "1"}, "config": {"x": 1}, "code_version": 1, "build": write("")}
    store = Store(tmp_path)
    assert store.compute(**arguments).key != store.compute(**(arguments | change)).key


def test_renew_computes_again(tmp_path):
    store = Store(tmp_path)
    store.compute("stage", {}, {}, 1, write("old"))
    again = store.compute("stage", {}, {}, 1, write("new"), renew=True)
    assert not again.reused
    assert (again.path / "out.txt").read_text() == "new"


def test_failure_leaves_nothing(tmp_path):
    def build(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise ValueError("broken")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="broken"):
        store.compute("stage", {}, {}, 1, build)
    assert not list(tmp_path.rglob("half.txt"))
    assert not store.compute("stage", {}, {}, 1, write("")).reused


def test_truncated_result_is_computed_again(tmp_path):
    store = Store(tmp_path)
    result = store.compute("stage", {}, {}, 1, write("complete"))
    (result.path / "out.txt").write_text("cut")
    again = store.compute("stage", {}, {}, 1, write("complete"))
    assert not again.reused
    assert (again.path / "out.txt").read_text() == "complete"


def test_unreadable_stage_file_is_computed_again(tmp_path):
    store = Store(tmp_path)
    result = store.compute("stage", {}, {}, 1, write("x"))
    (result.path / STAGE_FILE).write_text("{")
    assert not store.compute("stage", {}, {}, 1, write("x")).reused


def test_full_disk_is_explained(tmp_path):
    def build(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"disk is full.*--runs"):
        Store(tmp_path).compute("stage", {}, {}, 1, build)


def test_no_permission_is_explained(tmp_path):
    def build(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with pytest.raises(StoreError, match="no permission"):
        Store(tmp_path).compute("stage", {}, {}, 1, build)


CRASH = """
import os, signal, sys
from pathlib import Path
from phonefit.pipeline.store import Store
def build(folder):
    (folder / "out.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
Store(Path(sys.argv[1])).compute("stage", {}, {}, 1, build)
"""


def test_killed_process_leaves_no_result_and_no_lock(tmp_path):
    killed = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    result = Store(tmp_path).compute("stage", {}, {}, 1, write("whole"))
    assert not result.reused
    assert (result.path / "out.txt").read_text() == "whole"
    assert not list((tmp_path / "store" / "tmp").iterdir())


def _compute(root: Path, queue) -> None:
    result = Store(root).compute("stage", {}, {}, 1, lambda folder: (folder / f"{os.getpid()}").write_text("") and None)
    queue.put(sorted(path.name for path in result.path.iterdir()))


def test_two_processes_share_one_result(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_compute, args=(tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert answers[0] == answers[1]
    assert len(answers[0]) == 2  # one process's file and stage.json
