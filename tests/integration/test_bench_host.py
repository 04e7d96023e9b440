"""`bench` on this machine, with files that phonefit did not make."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from phonefit import bench, compare
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.report import Report
from tests.foreign_models import small_input, small_model, wide_model


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
