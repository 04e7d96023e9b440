"""Models on the emulated phone: what they compute, how long it takes, and what happens when memory is short."""

import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError, Job
from phonefit.device_bench.device_lock import DeviceBusyError
from phonefit.device_bench.emulator import counting
from phonefit.device_bench.emulator.machine import adb_of
from phonefit.device_bench.emulator.phone import EmulatedPhone, missing
from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError
from tests.foreign_models import WIDE_BYTES, quantised_tflite, small_input, small_model, wide_model

pytest_plugins = ["tests.device.emulator_fixtures"]
pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def emulated_phone(emulator_machine):
    if lack := missing():
        pytest.fail(lack)
    phone = EmulatedPhone()
    phone.prepare()
    yield phone
    phone.cleanup()


@pytest.fixture(params=sorted(SUFFIXES))
def runtime(request):
    return request.param


def job(model, runtime, **settings):
    return Job(model=model, runtime=runtime, **{"warmups": 1, "repeats": 3, **settings})


def outputs_here(path, runtime, values):
    """The file's outputs on this machine, in stored form."""
    session = runtime_module(runtime).load(path, 1)
    return session.run([values.astype(session.inputs[0].dtype)])


def test_it_says_what_it_is(emulated_phone):
    info = emulated_phone.info()
    assert (info.kind, info.name, info.architecture, info.cores) == ("emulator", "emulated Cortex-A76", "aarch64", 1)
    assert info == emulated_phone.info()
    assert info.details["kernel"] and info.details["clock"] == "1 ns an instruction"


def test_floats_are_those_of_this_machine(emulated_phone, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    values = small_input(seed=3)
    np.save(tmp_path / "input.npy", values)
    settings = {"input_file": tmp_path / "input.npy", "output_file": tmp_path / "outputs.npz"}
    emulated_phone.run(job(model, runtime, **settings))
    there = np.load(tmp_path / "outputs.npz")["output_0"]
    here = outputs_here(model, runtime, values)[0]
    assert there.shape == here.shape and np.ptp(here) > 0.1
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5)


def test_whole_numbers_are_exactly_those_of_this_machine(emulated_phone, tmp_path):
    model = quantised_tflite(tmp_path)
    stored = np.random.default_rng(0).integers(-128, 127, (1, 3, 16, 16), np.int8)
    np.save(tmp_path / "input.npy", stored)
    emulated_phone.run(
        job(model, "tflite", input_file=tmp_path / "input.npy", output_file=tmp_path / "outputs.npz"),
    )
    here = outputs_here(model, "tflite", stored)[0]
    assert here.dtype == np.int8 and np.ptp(here.astype(int)) > 10
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npz")["output_0"], here)


def test_times_repeat_and_are_marked_as_no_phone_s(emulated_phone, runtime, tmp_path):
    model = wide_model(tmp_path, runtime)
    runs = [emulated_phone.run(job(model, runtime)) for _ in range(2)]
    medians = [np.median(run.sample_nanoseconds) for run in runs]
    assert medians[0] == pytest.approx(medians[1], rel=0.005)
    assert {run.latency_source for run in runs} == {"modelled"}


def test_times_are_the_instructions_that_the_counting_tier_counts(emulated_phone, runtime, tmp_path):
    if lack := counting.missing():
        pytest.fail(lack)
    work = job(wide_model(tmp_path, runtime), runtime)
    counted = counting.CountingDevice().run(work).counts["instructions"]
    # 1 ns an instruction; the rest is the kernel's share, such as its timer
    assert np.median(emulated_phone.run(work).sample_nanoseconds) == pytest.approx(np.median(counted), rel=0.01)


def test_too_little_memory_is_a_result_and_not_an_error(emulated_phone, runtime, tmp_path):
    model = wide_model(tmp_path, runtime)
    free = emulated_phone.run(job(model, runtime))
    assert not free.out_of_memory and len(free.sample_nanoseconds) == 3
    assert free.peak_bytes > free.baseline_bytes + 0.9 * WIDE_BYTES
    assert free.cgroup_peak_bytes > 0.9 * WIDE_BYTES
    enough = emulated_phone.run(job(model, runtime, memory_limit_bytes=free.cgroup_peak_bytes + MEBIBYTE))
    assert not enough.out_of_memory and enough.sample_nanoseconds
    limit = free.baseline_bytes // 2
    short = emulated_phone.run(job(model, runtime, memory_limit_bytes=limit))
    assert short.out_of_memory and short.sample_nanoseconds == ()
    assert 0.9 * limit < short.cgroup_peak_bytes == short.peak_bytes <= limit
    assert short.conditions_after["memory_limit_hits"] > 0


def test_nothing_of_a_measurement_stays_there(emulated_phone, emulator_machine, tmp_path):
    emulated_phone.run(job(small_model(tmp_path, "tflite"), "tflite"))
    emulated_phone.cleanup()
    adb = adb_of(emulator_machine.start())
    assert adb.shell(["ls", "/data/local/tmp/phonefit"]).exit_code != 0
    assert adb.shell(["ls", "/sys/fs/cgroup/phonefit"]).exit_code != 0
    # the runners do: they are what takes time to copy
    assert adb.shell(["ls", "/data/local/tmp/phonefit-runners/aarch64/bin"], check=True).stdout.split()


def test_it_is_one_process_s_at_a_time(emulated_phone):
    emulated_phone.prepare()
    with pytest.raises(DeviceBusyError, match="in use by process"):
        EmulatedPhone().prepare()


def test_what_cannot_be_is_refused(emulated_phone, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    with pytest.raises(DeviceError, match=r"2 threads asked.*1 core"):
        emulated_phone.run(job(model, runtime, threads=2))
    with pytest.raises(DeviceError, match="core 0 only"):
        emulated_phone.run(job(model, runtime, cpu_mask=0b10))
    model.write_text("no model at all")
    with pytest.raises(FileFormatError, match="text file"):
        emulated_phone.run(job(model, runtime))


def test_an_input_of_the_wrong_shape_is_named(emulated_phone, tmp_path):
    np.save(tmp_path / "input.npy", np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(DeviceError, match=r"shape \[1, 3, 8, 8\].*\[1, 3, 16, 16\]"):
        emulated_phone.run(job(small_model(tmp_path, "onnx"), "onnx", input_file=tmp_path / "input.npy"))
