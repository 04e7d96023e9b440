"""Two phonefit processes on one phone, kills and Ctrl-C at any moment, with the real adb client: nothing is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from phonefit.device_bench.device_lock import DeviceBusyError
from phonefit.device_bench.shell_device import FOLDER
from tests.device.adb_fixtures import PROCESS, alive, open_and_run, wait_for
from tests.device.phone_case import become_phone, runner_folder, small_job

pytest_plugins = ["tests.device.adb_fixtures"]


@pytest.fixture
def start_process(private_adb, stand_in, tmp_path, hanging):
    """Starts another phonefit process on the phone, which hangs in its run; returns it when it does."""
    become_phone(stand_in)
    script, processes = hanging
    case = {
        "serial": stand_in.serial,
        "port": private_adb.port,
        "binary": private_adb.binary(),
        "state": str(tmp_path / "state"),
        "program": str(runner_folder(tmp_path / "native", script)),
        "job": small_job(tmp_path).as_json(),
    }
    with contextlib.ExitStack() as started:

        def start():
            process = subprocess.Popen(
                [sys.executable, "-c", PROCESS, json.dumps(case)], stderr=subprocess.PIPE, text=True
            )
            started.callback(process.communicate)
            started.callback(process.kill)
            wait_for(processes)
            return process

        yield start
        for pid in alive(processes()):
            os.kill(pid, signal.SIGKILL)


def test_two_processes_on_one_phone(start_process, open_device, stand_in):
    process = start_process()
    before = len(stand_in.commands)
    with pytest.raises(DeviceBusyError, match=rf"in use by process {process.pid} .*or end it: kill {process.pid}"):
        open_device().prepare()
    # the one that came second has touched nothing
    assert stand_in.commands[before:] == []


def test_ctrl_c_in_the_middle_of_a_run_ends_it_on_the_phone_and_cleans_up(start_process, stand_in, hanging):
    _, processes = hanging
    process = start_process()
    assert stand_in.files() and stand_in.settings
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert stand_in.files() == [] and stand_in.settings == {}
    wait_for(lambda: not alive(processes()))


def test_after_a_kill_the_next_process_cleans_up_first(start_process, open_device, stand_in, tmp_path):
    process = start_process()
    process.kill()
    process.wait()
    assert f"{FOLDER.rpartition('/')[2]}" in stand_in.files() and stand_in.settings
    before = len(stand_in.commands)
    assert open_and_run(open_device, small_job(tmp_path)).peak_bytes == 3000
    undo, set_anew = (f"cmd power set-fixed-performance-mode-enabled {word}" for word in ("false", "true"))
    assert stand_in.commands.index(undo, before) < stand_in.commands.index(set_anew, before)
    assert stand_in.files() == [] and stand_in.settings == {}
    assert list((tmp_path / "state").glob("*.json")) == []


class Interrupting:
    """Counts what a session asks of the device, and presses Ctrl-C just before or just after one of these steps."""

    def __init__(self, adb, step=None, when="before"):
        self.step, self.when, self.steps = step, when, []
        for name in ("shell", "_copy"):
            setattr(adb, name, self._counted(getattr(adb, name)))

    def _counted(self, real):
        def counted(command, *arguments, **options):
            self.steps.append(" ".join(command))
            now = len(self.steps) - 1 == self.step
            if now and self.when == "before":
                raise KeyboardInterrupt
            result = real(command, *arguments, **options)
            if now:
                raise KeyboardInterrupt
            return result

        return counted


def session(device, job):
    """What `bench` does with a device."""
    try:
        device.prepare()
        return device.run(job)
    finally:
        device.cleanup()


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_at_any_moment(open_device, stand_in, tmp_path, when):
    job = small_job(tmp_path)
    device = open_device()
    undisturbed = Interrupting(device._open())
    session(device, job)
    before_cleanup = next(place for place, line in enumerate(undisturbed.steps) if line.startswith(("rm -f", "rmdir")))
    assert any(" push " in line for line in undisturbed.steps[:before_cleanup])
    kinds = [line.partition("phonefit")[0] for line in undisturbed.steps]
    for step in (kinds.index(kind) for kind in dict.fromkeys(kinds)):  # the first of each kind of step
        device = open_device()
        interrupting = Interrupting(device._open(), step, when)
        with pytest.raises(KeyboardInterrupt):
            session(device, job)
        assert len(interrupting.steps) > step
        if step < before_cleanup:
            assert (stand_in.files(), stand_in.settings) == ([], {}), undisturbed.steps[step]
    # where the cleaning up itself was interrupted, the next session finishes it
    assert len(session(open_device(), job).sample_nanoseconds) == 12
    assert stand_in.files() == [] and stand_in.settings == {}
