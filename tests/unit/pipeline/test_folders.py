"""Replacing a folder as a whole, and locks between processes."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from phonefit.pipeline import folders, run
from phonefit.pipeline.folders import held, replaced, try_lock
from phonefit.pipeline.result import TrialResult

GOLDEN = Path(__file__).parents[2] / "golden"


def write(folder, *names):
    with replaced(folder) as new:
        for name in names:
            (new / name).write_text(name)


def content(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[True, False], ids=["in one step", "in two steps"])
def exchanges(request, monkeypatch):
    """With and without a file system that can exchange two folders."""
    if not request.param:
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)


def test_new_content_takes_the_place_of_all_of_the_old(tmp_path, exchanges):
    folder = tmp_path / "files"
    write(folder, "a", "b")
    write(folder, "b", "c")
    assert content(folder) == ["b", "c"]
    assert content(tmp_path) == ["files"]


def test_a_failure_while_filling_leaves_the_old_content(tmp_path, exchanges):
    folder = tmp_path / "files"
    write(folder, "a")
    with pytest.raises(OSError, match="full"), replaced(folder) as new:
        (new / "half").touch()
        raise OSError("full")
    assert content(folder) == ["a"]
    assert content(tmp_path) == ["files"]


def test_what_a_kill_between_two_steps_left_is_taken_up(tmp_path):
    write(tmp_path / "files", "a")
    (tmp_path / "files").rename(tmp_path / ".files.old")
    (tmp_path / ".files.new").mkdir()
    with pytest.raises(ValueError, match="stop"), replaced(tmp_path / "files"):
        raise ValueError("stop")
    assert content(tmp_path / "files") == ["a"]
    assert content(tmp_path) == ["files"]


def _write_often(folder, letter):
    for _ in range(30):
        with held(folder.with_name("lock")):
            write(folder, *(f"{letter}{place}" for place in range(4)))
            assert content(folder) == [f"{letter}{place}" for place in range(4)]


def test_two_processes_do_not_meet(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_often, args=(tmp_path / "files", letter)) for letter in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_files_of_a_run_are_exported_under_its_lock_and_before_its_figures(tmp_path, monkeypatch):
    trial = TrialResult.load(GOLDEN / "trial_1.json")
    for file in trial.files:
        source = tmp_path / "runs" / file.path
        source.parent.mkdir(parents=True)
        source.write_bytes(b"model")
    folder, seen = tmp_path / "runs/tiny", []

    def copy(source, destination):
        seen.append((try_lock(folder / "locks/files"), (folder / "trial.json").exists()))
        return real(source, destination)

    real = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", copy)
    folder.mkdir()
    run.publish(trial, tmp_path / "runs", folder)
    assert seen == [(None, False)] * 2
    assert content(folder / "files") == [
        "compressed-int8.onnx",
        "compressed-int8.onnx.json",
        "original-fp32.onnx",
        "original-fp32.onnx.json",
    ]
    assert TrialResult.load(folder / "trial.json") == trial
