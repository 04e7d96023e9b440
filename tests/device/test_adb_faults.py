"""Everything that goes wrong on the way to a device, with the real adb client. Nothing may be left on the device."""

import os
import signal
import threading

import pytest

from phonefit.device_bench.adb_errors import AdbCommandError, AdbTimeoutError, ConnectionLostError
from phonefit.device_bench.device import DeviceError, MeasurementError
from phonefit.models.errors import FileFormatError
from tests.device.adb_device_stand_in import WORK
from tests.device.adb_fixtures import alive, open_and_run, wait_for
from tests.device.phone_case import small_job

pytest_plugins = ["tests.device.adb_fixtures"]


def test_unplugged_in_the_middle_of_a_push(open_device, stand_in, tmp_path):
    job = small_job(tmp_path)
    job.model.write_bytes(os.urandom(2_000_000))
    device = open_device()
    device.prepare()
    stand_in.drop_push_after = 1_000_000
    with pytest.raises(
        ConnectionLostError, match=r"adb -s \S+ push .*the connection broke.*plug it in again"
    ) as caught:
        device.run(job)
    assert caught.value.exit_code == 3
    device.cleanup()
    # half of the model was there
    assert stand_in.files() == [] and stand_in.settings == {}
    assert len(open_and_run(open_device, job).sample_nanoseconds) == 12


def test_unplugged_for_good_leaves_a_journal_that_the_next_start_works_off(
    open_device, private_adb, stand_in, tmp_path, hanging, caplog
):
    script, processes = hanging
    stand_in.settings["stay_on_while_plugged_in"] = "3"
    device = open_device(script)
    device.prepare()
    device._shell._return_seconds = 0.5

    def pull_the_cable():
        wait_for(processes)
        stand_in.answering = False
        stand_in.unplug()

    threading.Thread(target=pull_the_cable).start()
    with pytest.raises(ConnectionLostError, match=r"connection broke[\s\S]*loading the model"):
        device.run(small_job(tmp_path))
    device.cleanup()
    assert "keeps staying awake, fixed performance, 9 files and folders until it is used again" in caplog.text
    assert "phonefit" in stand_in.files() and stand_in.settings["stay_on_while_plugged_in"] == "7"
    # plugged in again
    stand_in.answering = True
    private_adb.disconnect(stand_in.serial)
    private_adb.connect(stand_in.serial)
    assert open_and_run(open_device, small_job(tmp_path)).peak_bytes == 3000
    assert stand_in.files() == [] and stand_in.settings["stay_on_while_plugged_in"] == "3"
    for pid in alive(processes()):
        os.kill(pid, signal.SIGKILL)  # the runner's child: no adb was left to end it


def test_a_restart_during_a_run_is_told_from_a_pulled_cable(open_device, stand_in, tmp_path, hanging):
    script, processes = hanging
    device = open_device(script)
    device.prepare()
    threading.Thread(target=lambda: (wait_for(processes), stand_in.reboot())).start()
    with pytest.raises(ConnectionLostError, match=r"restarted during the measurement.*let it rest"):
        device.run(small_job(tmp_path))
    device.cleanup()
    assert stand_in.files() == [] and stand_in.settings == {}


def test_a_reply_without_its_end_is_not_taken_for_the_whole(stand_in, stand_in_adb):
    stand_in.replies["getprop"] = "[ro.build.version.release]: [15]\n" * 100
    stand_in.truncate = "getprop"
    with pytest.raises(ConnectionLostError, match="the reply ended before the program's exit status"):
        stand_in_adb.shell(["getprop"])


def test_a_truncated_result_of_the_runner_is_no_result(open_device, stand_in, tmp_path):
    device = open_device()
    device.prepare()
    stand_in.truncate = "cat /data/local/tmp/phonefit/result"
    with pytest.raises(ConnectionLostError, match="reply ended"):
        device.run(small_job(tmp_path))
    stand_in.truncate = None
    device.cleanup()
    assert stand_in.files() == []


def test_an_unauthorised_phone(open_device, private_adb, stand_in, stand_in_adb):
    private_adb.disconnect(stand_in.serial)
    stand_in.authorised = False
    with pytest.raises(DeviceError, match="unlock the phone and accept this computer"):
        private_adb.connect(stand_in.serial)
    device = open_device()
    with pytest.raises(DeviceError, match=r"is unauthorized; unlock the phone.*Allow USB debugging"):
        device.prepare()
    with pytest.raises(DeviceError, match=r"shell echo: \S+ is unauthorized .*unlock the phone"):
        stand_in_adb.shell(["echo"])


def test_an_offline_phone(open_device, stand_in, stand_in_adb):
    stand_in.answering = False
    stand_in.unplug()
    wait_for(lambda: stand_in_adb.state() == "offline")
    with pytest.raises(DeviceError, match=r"is offline; unplug the cable and plug it in again"):
        open_device().prepare()
    with pytest.raises(DeviceError, match=r"is offline .*unplug the cable"):
        stand_in_adb.shell(["echo"])


def test_a_phone_that_was_taken_away(private_adb, stand_in, stand_in_adb, tmp_path):
    private_adb.disconnect(stand_in.serial)
    (tmp_path / "f").write_bytes(b"x")
    for action in (lambda: stand_in_adb.shell(["echo"]), lambda: stand_in_adb.push(tmp_path / "f", f"{WORK}/f")):
        with pytest.raises(DeviceError, match=r"is not attached any more.*switch on USB debugging"):
            action()


def test_a_full_phone_is_told_how_much_is_missing_and_left_clean(open_device, stand_in, tmp_path):
    job = small_job(tmp_path)
    job.model.write_bytes(os.urandom(3_000_000))
    device = open_device()
    device.prepare()
    stand_in.free_bytes = 1_024_000
    wanted = r"No space left on device; 3,000,000 bytes are needed, 1,024,000 are free; free at least 1,976,000 more"
    with pytest.raises(AdbCommandError, match=wanted):
        device.run(job)
    device.cleanup()
    assert stand_in.files() == []


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ("#!/bin/sh\necho 'bad tensor' >&2; kill -SEGV $$\n", MeasurementError, r"killed by SIGSEGV[\s\S]*bad tensor"),
        ("#!/bin/sh\nkill -KILL $$\n", MeasurementError, "killed by SIGKILL.*runs out of memory: close apps"),
        ("#!/bin/sh\necho 'phonefit_onnx: m: not a model' >&2; exit 2\n", FileFormatError, "not a model"),
        ("#!/bin/sh\necho 'phonefit_onnx: out of luck' >&2; exit 3\n", MeasurementError, "exit status 3: out of luck"),
        ("#!/bin/sh\nexit 0\n", MeasurementError, "left no result"),
        ("#!/no/such/loader\n", DeviceError, "the runner cannot be run on this device .exit status 12[67]"),
        ("#!/bin/sh\necho '{\"schema\": 9}' > $4\n", MeasurementError, "unusable result of the native runner"),
    ],
    ids=["crash", "killed", "no model", "failure", "no result", "other architecture", "other version"],
)
def test_a_runner_that_ends_badly(open_device, stand_in, tmp_path, script, kind, reason):
    device = open_device(script)
    device.prepare()
    with pytest.raises(kind, match=reason):
        device.run(small_job(tmp_path))
    device.cleanup()
    assert stand_in.files() == []


def test_a_runner_that_hangs_is_ended_on_the_device_with_its_children(open_device, stand_in, tmp_path, hanging):
    script, processes = hanging
    device = open_device(script)
    device.prepare()
    with pytest.raises(AdbTimeoutError, match=r"no end after 1 s; it was killed; its last words:\sloading the model"):
        device.run(small_job(tmp_path, timeout_seconds=1))
    assert len(processes()) == 2
    wait_for(lambda: not alive(processes()))
    device.cleanup()
    assert stand_in.files() == []


def test_a_restart_in_the_middle_of_a_push_is_told_from_a_pulled_cable(open_device, stand_in, tmp_path, monkeypatch):
    job = small_job(tmp_path)
    job.model.write_bytes(os.urandom(2_000_000))
    device = open_device()
    device.prepare()
    stand_in.drop_push_after = 1_000_000
    stand_in.boots += 1  # what it will say once it is back
    with pytest.raises(ConnectionLostError, match=r"restarted during the measurement.*let it rest"):
        device.run(job)
    device.cleanup()
    assert stand_in.files() == [] and stand_in.settings == {}


def test_a_phone_that_is_full_before_the_runner_is_there(open_device, stand_in, tmp_path):
    stand_in.free_bytes = 1024
    device = open_device()
    device.prepare()
    with pytest.raises(AdbCommandError, match=r"No space left on device.*free at least"):
        device.run(small_job(tmp_path))
    device.cleanup()
    assert stand_in.files() == []


def test_unauthorised_in_the_middle_of_a_session(open_device, private_adb, stand_in, stand_in_adb, tmp_path):
    """As after "revoke USB debugging authorisations" on the phone."""
    device = open_device()
    device.prepare()
    device._shell._return_seconds = 0.5
    stand_in.authorised = False
    stand_in.unplug()
    wait_for(lambda: stand_in_adb.state() != "device")
    private_adb.disconnect(stand_in.serial)
    with pytest.raises(DeviceError):
        private_adb.connect(stand_in.serial)
    with pytest.raises(DeviceError, match=r"is unauthorized .*unlock the phone"):
        device.run(small_job(tmp_path))
    device.cleanup()
    stand_in.authorised = True
    private_adb.disconnect(stand_in.serial)
    private_adb.connect(stand_in.serial)
    assert len(open_and_run(open_device, small_job(tmp_path)).sample_nanoseconds) == 12
    assert stand_in.files() == [] and stand_in.settings == {}
