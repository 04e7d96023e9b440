"""The emulated phone's life: started once, found again, cleaned up after a crash, stopped. Built by `make emulator`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from phonefit.device_bench.adb_errors import AdbTimeoutError
from phonefit.device_bench.emulator.guest import limited, memory_use
from phonefit.device_bench.emulator.machine import Machine, adb_of, parse_options

pytest_plugins = ["tests.device.emulator_fixtures"]
pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]
MEBIBYTE = 2**20


@pytest.fixture
def adb(emulator_machine):
    return adb_of(emulator_machine.start())


@pytest.fixture
def other_machine(emulator_cache):
    """A second, smaller one, for tests that end it."""
    machine = Machine(emulator_cache, parse_options("ram=512M"))
    machine.stop()
    yield machine
    machine.stop()


def test_it_is_an_arm64_linux_with_the_memory_asked_for(adb):
    assert adb.shell(["uname", "-sm"], check=True).stdout == "Linux aarch64\n"
    total = int(adb.shell(["awk", "/MemTotal/ { print $2 }", "/proc/meminfo"]).stdout) * 1024
    # the kernel keeps some for itself
    assert 0.93 * 6 * 2**30 < total <= 6 * 2**30


def test_it_is_found_by_another_process_and_not_started_twice(emulator_machine):
    state = emulator_machine.start()
    program = "from phonefit.device_bench.emulator.__main__ import main; main(['status'])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert f"adb serial {state.serial}" in said and f"process {state.process}," in said
    assert emulator_machine.start() == state


def test_only_this_machine_reaches_it(emulator_machine):
    listening = [
        connection.laddr
        for connection in psutil.Process(emulator_machine.start().process).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    assert emulator_machine.start().serial == f"127.0.0.1:{listening[0].port}"


def test_it_reaches_nothing_of_this_machine(adb):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        # 10.0.2.2 stands for this machine in QEMU's network
        answer = adb.shell(["nc", "-w", "2", "10.0.2.2", str(server.getsockname()[1])], timeout_seconds=20)
        assert answer.exit_code != 0
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_is_copied_there_comes_back_and_is_not_sent_twice(adb, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(3 * MEBIBYTE + 5))
    target = "/data/local/tmp/test-copy"
    assert adb.push(source, target) is True
    assert adb.push(source, target) is False
    adb.pull(target, back)
    adb.shell(["rm", target], check=True)
    assert back.read_bytes() == source.read_bytes()


def allocate(mebibytes):
    return ["dd", "if=/dev/zero", "of=/dev/null", f"bs={mebibytes}M", "count=1"]


def test_a_program_over_the_limit_is_killed_and_below_it_is_not(adb):
    over = adb.shell(limited(allocate(40), 30 * MEBIBYTE))
    use, _ = memory_use(over.stdout)
    assert use.out_of_memory and over.exit_code == use.exit_code == 128 + signal.SIGKILL
    # the group as a whole may hold no more than the limit
    assert 0.99 * 30 * MEBIBYTE < use.peak_bytes <= 30 * MEBIBYTE
    use, _ = memory_use(adb.shell(limited(allocate(40), 50 * MEBIBYTE)).stdout)
    assert not use.out_of_memory and use.exit_code == 0
    assert 40 * MEBIBYTE < use.peak_bytes < 41 * MEBIBYTE


def test_pages_of_a_file_count_but_do_not_end_a_program(adb, tmp_path):
    source = tmp_path / "file"
    source.write_bytes(bytes(20 * MEBIBYTE))
    target = "/data/local/tmp/test-pages"
    adb.push(source, target)
    command = ["sh", "-c", f"cat {target} > /dev/null"]
    unlimited, _ = memory_use(adb.shell(limited(command, None)).stdout)
    tight, _ = memory_use(adb.shell(limited(command, 8 * MEBIBYTE)).stdout)
    adb.shell(["rm", target], check=True)
    assert 20 * MEBIBYTE < unlimited.peak_bytes < 21 * MEBIBYTE
    assert tight.exit_code == 0 and tight.limit_hits > 0 and tight.peak_bytes <= 8 * MEBIBYTE


def test_a_program_that_took_too_long_leaves_nothing_behind(adb):
    with pytest.raises(AdbTimeoutError):
        adb.shell(limited(["sleep", "98765"], None), timeout_seconds=2)
    result = adb.shell(limited(["echo", "next"], None), check=True)
    assert memory_use(result.stdout)[1] == "next\n"
    assert "98765" not in adb.shell(["ps"]).stdout


def test_the_guest_clock_counts_instructions(adb):
    """The same work takes the same time in the guest, whatever this machine does besides."""
    work = ["sh", "-c", "time -p sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done'"]
    seconds = []
    for busy in (False, True):
        with contextlib.ExitStack() as stack:
            if busy:
                other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                stack.callback(other.wait)
                stack.callback(other.kill)
            said = adb.shell(work, check=True).stderr
        seconds.append(float(said.split()[1]))
    assert seconds[0] > 0.5
    assert seconds[1] == pytest.approx(seconds[0], rel=0.02)


def test_after_a_crash_a_new_one_is_started(other_machine):
    first = other_machine.start()
    os.kill(first.process, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.process)] if psutil.pid_exists(first.process) else [], timeout=10)
    assert other_machine.find() is None
    second = other_machine.start()
    assert second.process != first.process
    assert adb_of(second).shell(["true"], check=True).exit_code == 0
    assert other_machine.stop() is True
    assert not psutil.pid_exists(second.process)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", second.port)) != 0, "its port is free again"


def test_a_starter_that_is_killed_leaves_a_machine_that_the_next_one_uses_or_removes(other_machine):
    program = (
        "from phonefit.device_bench.emulator.image import default_cache\n"
        "from phonefit.device_bench.emulator.machine import Machine, parse_options\n"
        "Machine(default_cache(), parse_options('ram=512M')).start()"
    )
    starter = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while other_machine.find() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    starter.kill()
    starter.wait()
    left = other_machine.find()
    assert left is not None and other_machine.start() == left
