"""What every device promises. A new kind is one line in `device`."""

import pytest

from phonefit.device_bench.device import Device, DeviceError, Job, MeasurementError
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.native_runner import runner_for
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError
from tests.foreign_models import WIDE_BYTES, small_model, wide_model

HOSTS = {"host, python": lambda: HostDevice(lambda runtime: None)}
if runner_for("tflite"):  # built by `make native`, which needs system packages
    HOSTS["host, native"] = HostDevice


@pytest.fixture(scope="module", params=HOSTS)
def device(request):
    opened: Device = HOSTS[request.param]()
    opened.prepare()
    yield opened
    opened.cleanup()


@pytest.fixture(params=sorted(SUFFIXES))
def runtime(request):
    return request.param


def job(model, runtime, **settings):
    return Job(model=model, runtime=runtime, **{"warmups": 2, "repeats": 5, **settings})


def test_it_identifies_itself_the_same_twice(device):
    info = device.info()
    assert info == device.info()
    assert info.name and info.cores >= 1 and info.ram_bytes > 2**20


def test_a_run_gives_what_was_asked_for(device, runtime, tmp_path):
    run = device.run(job(small_model(tmp_path, runtime), runtime))
    assert len(run.warmup_nanoseconds) == 2
    assert len(run.sample_nanoseconds) == 5
    assert min(run.sample_nanoseconds) > 0 and run.load_nanoseconds > 0
    assert run.versions
    assert run.conditions_after.keys() <= run.conditions_before.keys() and run.conditions_before


def test_a_constant_of_32_mebibytes_shows_in_the_peak(device, runtime, tmp_path):
    peaks = []
    for model in (small_model(tmp_path, runtime), wide_model(tmp_path, runtime)):
        run = device.run(job(model, runtime))
        peaks.append(run.peak_bytes - run.baseline_bytes)
    # the runtime may hold the file and its own form of the weights at once, but no more than three copies
    assert WIDE_BYTES * 0.9 < peaks[1] - peaks[0] < WIDE_BYTES * 3.5


def test_a_duration_makes_more_samples_than_the_repeats(device, tmp_path):
    run = device.run(job(small_model(tmp_path, "onnx"), "onnx", repeats=1, duration_seconds=0.2))
    assert len(run.sample_nanoseconds) > 1
    assert sum(run.sample_nanoseconds) <= 0.3e9 + max(run.sample_nanoseconds)


def test_a_bad_file_is_refused_as_such(device, runtime, tmp_path):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    path.write_text("no model at all")
    with pytest.raises(FileFormatError, match="text file"):
        device.run(job(path, runtime))


def test_a_crash_of_the_runtime_is_a_failed_measurement(device, tmp_path):
    path = small_model(tmp_path, "executorch")
    # the name of the XNNPACK payload is no text any more: the runtime's own error message makes it abort
    path.write_bytes(path.read_bytes().replace(b"XH00", b"\xa7H00"))
    with pytest.raises(MeasurementError, match=r"SIGABRT[\s\S]*terminate called|exit status 3") as caught:
        device.run(job(path, "executorch"))
    assert caught.value.exit_code == 3


def test_a_measurement_that_takes_too_long_is_ended(device, tmp_path):
    with pytest.raises(MeasurementError, match=r"no result .* after 2 s"):
        device.run(job(small_model(tmp_path, "onnx"), "onnx", repeats=10**9, timeout_seconds=2))


def test_more_threads_than_cores_are_refused(device, tmp_path):
    with pytest.raises(DeviceError, match="64 threads"):
        device.run(job(small_model(tmp_path, "onnx"), "onnx", threads=64))
