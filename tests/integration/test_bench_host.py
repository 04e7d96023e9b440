"""`bench` on this machine, with files that phonefit did not make."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from phonefit import bench, compare
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.host_facts import usable_cores
from phonefit.device_bench.native_runner import runner_for
from phonefit.device_bench.reference import REFERENCE_REPEATS
from phonefit.device_bench.report import Report
from tests.foreign_models import lookup_model, small_input, small_model, wide_model

ENDLESS = 10**9
HOSTS = {"native": HostDevice, "python": lambda: HostDevice(lambda runtime: None)}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="macOS neither binds processes to cores nor ties them")


@pytest.fixture(params=["python", pytest.param("native", marks=pytest.mark.emulator)])
def host(request):
    if request.param == "native" and runner_for("onnx") is None:
        pytest.fail("the native runners are not built from the present sources and packages; run: make native")
    return request.param


@pytest.mark.parametrize("runtime", ["executorch", "tflite", "onnx"])
def test_a_foreign_file_gives_a_whole_report(runtime, tmp_path):
    lines = []
    report = bench(small_model(tmp_path, runtime), repeats=12, attempts=1, progress=lines.append)
    assert report.runtime == runtime
    assert len(report.figures["latency"].samples) == 12
    assert report.peak_memory_bytes() > 0
    assert report.settings["threads"] == 1 and report.settings["attempts"] == 1
    assert lines and "attempt 1" in lines[0]
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report


def test_a_wide_model_is_slower_than_a_small_one(tmp_path):
    first, second = (bench(make(tmp_path, "tflite"), repeats=20, attempts=1) for make in (small_model, wide_model))
    assert compare(first, second).outcome == "slower"


def test_a_killed_worker_is_a_failed_measurement(tmp_path):
    """As by the kernel's out-of-memory killer."""
    caught = []

    def measure():
        try:
            in_python = HostDevice(lambda runtime: None)
            in_python.run(Job(model=small_model(tmp_path, "onnx"), runtime="onnx", repeats=10**9))
        except MeasurementError as error:
            caught.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    me, found = psutil.Process(), []
    while thread.is_alive() and not found:
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that has just ended, as the look for its name
            found = [child for child in me.children() if "phonefit.device_bench.worker" in child.cmdline()]
    os.kill(found[0].pid, signal.SIGKILL)
    thread.join(timeout=30)
    assert "SIGKILL" in str(caught[0])


def measuring_below(process):
    """The process below this one that measures with ENDLESS repeats: its own program, and not only started yet."""
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = child.cmdline()
            if "taskset" not in line[:1] and (str(ENDLESS) in line or "phonefit.device_bench.worker" in line):
                return child
    return None


@linux_only
def test_it_runs_on_the_cores_of_the_mask(host, tmp_path):
    core = max(os.sched_getaffinity(0))
    job = Job(model=small_model(tmp_path, "onnx"), runtime="onnx", repeats=ENDLESS, cpu_mask=1 << core)

    def measure():
        with contextlib.suppress(MeasurementError):  # it is killed below
            HOSTS[host]().run(job)

    thread = threading.Thread(target=measure)
    thread.start()
    child = None
    while thread.is_alive() and child is None:
        child = measuring_below(psutil.Process())
    assert child is not None
    cores = child.cpu_affinity()
    child.kill()
    thread.join(timeout=30)
    assert cores == [core]


@linux_only
def test_cores_that_it_cannot_have_are_refused(host, tmp_path):
    model = small_model(tmp_path, "onnx")
    lacking = max(os.sched_getaffinity(0)) + 1
    with pytest.raises(DeviceError, match=f"CPU mask {1 << lacking:#x} asked, but this process may use the cores of"):
        HOSTS[host]().run(Job(model=model, runtime="onnx", cpu_mask=1 << lacking))
    core = min(os.sched_getaffinity(0))
    with pytest.raises(DeviceError, match=r"2 threads asked, but the process may use 1 core"):
        HOSTS[host]().run(Job(model=model, runtime="onnx", cpu_mask=1 << core, threads=2))


def test_a_system_that_binds_no_process_to_cores_says_so(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    with pytest.raises(DeviceError, match="binds no process to cores; leave the mask out"):
        HostDevice().run(Job(model=small_model(tmp_path, "onnx"), runtime="onnx", cpu_mask=1))


def test_outputs_of_a_persons_own_input_are_written(host, tmp_path):
    np.save(tmp_path / "in.npy", np.array([2], np.int64))
    files = {"input_file": tmp_path / "in.npy", "output_file": tmp_path / "out.npz"}
    HOSTS[host]().run(Job(model=lookup_model(tmp_path, "onnx"), runtime="onnx", repeats=1, **files))
    outputs = np.load(tmp_path / "out.npz")
    assert [name for name in sorted(outputs) if not name.startswith("input")] == ["output_0", "output_1"]
    np.testing.assert_allclose(outputs["output_1"], 2 * outputs["output_0"])


def test_an_inference_that_the_runtime_gives_up_is_a_failed_measurement(host, tmp_path):
    np.save(tmp_path / "in.npy", np.array([99], np.int64))
    job = Job(model=lookup_model(tmp_path, "onnx"), runtime="onnx", input_file=tmp_path / "in.npy")
    with pytest.raises(MeasurementError, match=r"lookup\.onnx.*out of data bounds"):
        HOSTS[host]().run(job)


@linux_only
def test_reference_loops_surround_the_inferences(host, tmp_path):
    run = HOSTS[host]().run(Job(model=small_model(tmp_path, "onnx"), runtime="onnx", repeats=10))
    assert len(run.reference_before_nanoseconds) == len(run.reference_after_nanoseconds) == REFERENCE_REPEATS
    assert run.timed_until_seconds - run.timed_from_seconds >= sum(run.sample_nanoseconds) / 1e9
    assert run.timed_until_seconds < time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_measurement_beside_busy_processes_is_not_trusted(host, tmp_path):
    script = "print('spinning', flush=True)\nwhile True: pass"
    model, spinning = small_model(tmp_path, "onnx"), []
    try:
        for _ in range(usable_cores() + 1):
            spinning.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE))
        for process in spinning:
            assert process.stdout.readline()
        report = bench(model, device=HOSTS[host](), attempts=1)
    finally:
        for process in spinning:
            process.kill()
            process.communicate()
    assert not report.trusted
    assert any("cores busy" in doubt.reason for doubt in report.untrusted)


@linux_only
def test_a_measurement_ends_with_the_process_that_asked_for_it(host, tmp_path):
    script = (
        "import sys; from pathlib import Path; from phonefit.device_bench.device import Job\n"
        "from phonefit.device_bench.host import HostDevice\n"
        "from phonefit.device_bench.native_runner import runner_for\n"
        "device = HostDevice() if sys.argv[2] == 'native' else HostDevice(lambda runtime: None)\n"
        f"device.run(Job(model=Path(sys.argv[1]), runtime='onnx', repeats={ENDLESS}))\n"
    )
    process = psutil.Popen([sys.executable, "-c", script, str(small_model(tmp_path, "onnx")), host])
    child = None
    try:
        while child is None and process.poll() is None:
            child = measuring_below(process)
    finally:
        process.kill()
        process.wait()
    assert child is not None
    found = [child]
    _, alive = psutil.wait_procs(found, timeout=30)
    for child in alive:
        child.kill()
    assert alive == []


def test_a_worker_whose_starter_has_ended_does_not_measure(tmp_path):
    job = Job(model=small_model(tmp_path, "onnx"), runtime="onnx")
    (tmp_path / "job").write_text(job.model_dump_json())
    line = [sys.executable, "-m", "phonefit.device_bench.worker", str(tmp_path / "job"), str(tmp_path / "result"), "1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "process 1, which started this measurement, has ended" in done.stderr
    assert not (tmp_path / "result").exists()


def test_a_persons_own_input_is_used(tmp_path):
    np.save(tmp_path / "input.npy", small_input())
    job = Job(model=small_model(tmp_path, "onnx"), runtime="onnx", repeats=2, input_file=tmp_path / "input.npy")
    assert len(HostDevice().run(job).sample_nanoseconds) == 2
    np.save(tmp_path / "input.npy", small_input()[:, :, :8])
    with pytest.raises(DeviceError, match=r"\[1, 3, 8, 16\], but input 'x' takes \[1, 3, 16, 16\]"):
        HostDevice().run(job)


def test_the_host_says_that_it_cannot_limit_memory(tmp_path):
    with pytest.raises(DeviceError, match=r"cannot enforce a memory limit.*emulator"):
        HostDevice().run(Job(model=small_model(tmp_path, "onnx"), runtime="onnx", memory_limit_bytes=2**20))


def test_a_folder_named_like_a_dependency_does_not_disturb(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert bench(small_model(tmp_path, "onnx"), repeats=3, attempts=1).median_milliseconds() > 0


def test_measuring_imports_no_training_code():
    script = (
        "import sys; import phonefit.device_bench.bench, phonefit.device_bench.compare, phonefit.device_bench.host\n"
        "print([name for name in ('torch', 'optuna', 'onnxruntime', 'executorch') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
