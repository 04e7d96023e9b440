import os
import signal
import subprocess
import sys

import pytest

from phonefit.device_bench.device_lock import DeviceBusyError, file_of, hold_device
from phonefit.device_bench.journal import Change, Journal, read_or_set_aside

HOLDER = """
import sys
from pathlib import Path
from phonefit.device_bench.device_lock import hold_device
with hold_device("R5CT 10", Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the device until it is told to stop, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_has_the_device(holder, tmp_path):
    with (
        pytest.raises(DeviceBusyError, match=rf"R5CT 10 is in use by process {holder.pid} .*kill {holder.pid}"),
        hold_device("R5CT 10", tmp_path),
    ):
        pass


def test_another_device_is_free(holder, tmp_path):
    with hold_device("emulator-5554", tmp_path):
        pass


def test_a_killed_process_lets_go(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold_device("R5CT 10", tmp_path):
        pass


def test_leaving_the_block_lets_go_also_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_device("a", tmp_path):
        _ = 1 / 0
    with hold_device("a", tmp_path):
        pass


def test_any_serial_makes_a_file_name(tmp_path):
    assert file_of("adb-1/../x:5555 é", ".lock", tmp_path / "new").parent == tmp_path / "new"
    assert (tmp_path / "new").is_dir()


def test_the_journal_undoes_newest_first_and_then_is_gone(tmp_path):
    journal = Journal(tmp_path / "x.json")
    for name in "abca":
        journal.add(Change(what=name, undo=("rm", name)))
    undone = []
    # another process after a kill: everything is on disk
    Journal(tmp_path / "x.json").undo_all(undone.append)
    assert [change.what for change in undone] == ["c", "b", "a"]
    assert not journal.path.exists() and journal.changes() == ()


def test_what_could_not_be_undone_stays_in_the_journal(tmp_path):
    journal = Journal(tmp_path / "x.json")
    for name in "abc":
        journal.add(Change(what=name, undo=(name,)))

    def undo(change):
        if change.what == "b":
            raise ConnectionError

    with pytest.raises(ConnectionError):
        journal.undo_all(undo)
    assert [change.what for change in journal.changes()] == ["a", "b"]


def test_a_damaged_journal_is_kept_and_reported(tmp_path):
    journal = Journal(tmp_path / "x.json")
    journal.path.write_text("{")
    assert "x.damaged" in read_or_set_aside(journal)
    assert journal.changes() == () and (tmp_path / "x.damaged").read_text() == "{"
