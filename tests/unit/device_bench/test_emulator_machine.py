"""Finding the emulated phone again: its options and its state file, without starting one."""

import os
import subprocess
import sys

import psutil
import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator import machine as machine_module
from phonefit.device_bench.emulator.locks import locked
from phonefit.device_bench.emulator.machine import Machine, MachineOptions, MachineState, parse_options

GIBIBYTE = 2**30


@pytest.mark.parametrize(
    ("text", "ram"),
    [("", 6 * GIBIBYTE), ("ram=4G", 4 * GIBIBYTE), ("ram=512M", GIBIBYTE // 2), ("ram=3072M", 3 * GIBIBYTE)],
)
def test_options(text, ram):
    assert parse_options(text).ram_bytes == ram


@pytest.mark.parametrize("text", ["ram=4", "ram=4g", "ram=-1G", "cores=4", "ram=4G,ram=2G", "6G"])
def test_wrong_options_are_refused_with_an_example(text):
    with pytest.raises(DeviceError, match="emulator:ram=4G"):
        parse_options(text)


def test_a_phone_too_small_to_boot_is_refused():
    with pytest.raises(DeviceError, match="at least 256M"):
        parse_options("ram=64M")


def test_machines_of_other_memory_do_not_share_a_folder():
    assert parse_options("ram=4G").name != parse_options("").name
    assert parse_options("ram=6G").name == parse_options("ram=6144M").name == parse_options("").name


def save_state(cache, process):
    state = MachineState(
        process=process.pid,
        process_started=process.create_time(),
        port=5555,
        adb_server_port=1,
        options=MachineOptions(),
        image="",
        emulator_version="",
    )
    folder = cache / "run" / state.options.name
    folder.mkdir(parents=True, exist_ok=True)
    state.save(folder / "state.json")
    return state


def test_a_running_machine_is_found_and_an_ended_one_is_not(tmp_path):
    # a process that waits for the end of its input stands for QEMU
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        state = save_state(tmp_path, psutil.Process(process.pid))
        assert Machine(tmp_path).find() == state
        assert Machine(tmp_path, parse_options("ram=4G")).find() is None
    assert Machine(tmp_path).find() is None


def test_a_process_that_only_has_the_id_of_an_ended_machine_is_not_it(tmp_path):
    state = save_state(tmp_path, psutil.Process(os.getpid()))
    earlier = state.model_copy(update={"process_started": state.process_started - 100})
    earlier.save(tmp_path / "run" / state.options.name / "state.json")
    assert Machine(tmp_path).find() is None


def test_a_damaged_state_counts_as_none(tmp_path):
    save_state(tmp_path, psutil.Process(os.getpid()))
    (tmp_path / "run" / MachineOptions().name / "state.json").write_text("{")
    assert Machine(tmp_path).find() is None


def test_stopping_what_does_not_run_is_no_error(tmp_path):
    assert Machine(tmp_path).stop() is False


def test_what_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_module.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"qemu-system-aarch64 is missing.*make emulator"):
        Machine(tmp_path).start()
    monkeypatch.setattr(machine_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(DeviceError, match=r"no image.*make emulator"):
        Machine(tmp_path).start()


def test_a_lock_is_exclusive_between_open_files_and_free_again_afterwards(tmp_path):
    with (
        locked(tmp_path / "lock", "busy"),
        pytest.raises(DeviceError, match="building"),
        locked(tmp_path / "lock", "another is building", patience_seconds=0),
    ):
        pass
    with locked(tmp_path / "lock", "busy", patience_seconds=0):
        pass
