"""What every device promises. A new kind is one line in `KINDS`, with what it cannot do."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from phonefit.device_bench.android import AndroidDevice
from phonefit.device_bench.app_device import AppDevice
from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.emulator.counting import CountingDevice
from phonefit.device_bench.emulator.machine import adb_of
from phonefit.device_bench.emulator.phone import EmulatedPhone
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.native_runner import runner_for
from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError
from tests.device.adb_fixtures import attached_stand_in
from tests.device.app_fixtures import write_apk
from tests.device.phone_case import become_phone
from tests.foreign_models import WIDE_BYTES, quantised_tflite, small_input, small_model, wide_model

pytest_plugins = ["tests.device.adb_fixtures", "tests.device.app_fixtures"]
MANY = 10**9


def host(find_runner):
    def open_it(request):
        yield HostDevice(find_runner)

    return open_it


def counts(request):
    yield CountingDevice()


def emulated_phone(request):
    request.getfixturevalue("emulator_machine")
    yield EmulatedPhone()


def over_adb(request):
    """The emulated phone once more, as any device that adb reaches."""
    adb = adb_of(request.getfixturevalue("emulator_machine").start())
    yield AndroidDevice(adb.serial, server=adb.server, state=request.getfixturevalue("tmp_path_factory").mktemp("adb"))


def stand_in_phone(request):
    """Android's programs are the stand-in's; the adb client, the runners and what they measure are real."""
    server = request.getfixturevalue("private_adb")
    folder = request.getfixturevalue("tmp_path_factory").mktemp("phone")
    with attached_stand_in(server, folder / "device") as phone:
        become_phone(phone)
        yield AndroidDevice(
            phone.serial,
            server=server,
            state=folder / "state",
            find_runner=lambda runtime, architecture: runner_for(runtime),
        )


def by_the_app(request):
    """The app's stand-in on the emulated phone."""
    phone, folder = request.getfixturevalue("app_phone"), request.getfixturevalue("tmp_path_factory").mktemp("app")
    phone.adb.install(write_apk(folder / "app.apk"), ["--no-streaming"])
    yield AppDevice(phone.adb.serial, server=phone.adb.server, state=folder)


@dataclass(frozen=True)
class Kind:
    """How a test gets at a device, and what the device declares that it cannot do.

    Attributes:
        open: generator of the device.
        latency: source of its times.
        most_warmups, most_repeats: it makes no more than these, whatever is asked.
        repeats_within: two runs' median latencies agree within this share; None: its time is that of a busy machine.
        limits_memory: it enforces a job's memory limit; the others refuse one.
        lasts: it goes on for a duration; the others refuse one.
        has_conditions: its figures depend on its state, which it tells.
        sends_outputs: it writes a job's output file; the others refuse one, and compare outputs themselves.
        chooses_cores: it takes a CPU mask; the others refuse one.
        runtimes: that its tests run: fewer where one takes long.
    """

    open: Callable
    latency: str = "measured"
    most_warmups: int = MANY
    most_repeats: int = MANY
    repeats_within: float | None = None
    limits_memory: bool = False
    lasts: bool = True
    has_conditions: bool = True
    sends_outputs: bool = True
    chooses_cores: bool = True
    runtimes: tuple[str, ...] = tuple(SUFFIXES)


EMULATOR = (pytest.mark.emulator,)
PHONE = (pytest.mark.emulator, pytest.mark.xdist_group("emulator"))
EXACT = {"latency": "modelled", "most_warmups": 1, "most_repeats": 2, "repeats_within": 0.0}
CLOCKED = {"latency": "modelled", "most_warmups": 1, "most_repeats": 3, "repeats_within": 0.005}
KINDS = [
    pytest.param(Kind(host(lambda runtime: None)), id="host-python"),
    pytest.param(Kind(host(runner_for)), id="host-native", marks=EMULATOR),
    pytest.param(Kind(counts, **EXACT, lasts=False, has_conditions=False), id="emulator:counts", marks=EMULATOR),
    pytest.param(Kind(emulated_phone, **CLOCKED, limits_memory=True), id="emulator", marks=PHONE),
    pytest.param(Kind(over_adb, repeats_within=0.005), id="adb", marks=PHONE),
    pytest.param(Kind(stand_in_phone), id="adb-stand-in", marks=EMULATOR),
    # The other runtimes are run in tests/device/test_app.py. Asking for the result takes time of its one core.
    pytest.param(
        Kind(by_the_app, sends_outputs=False, chooses_cores=False, runtimes=("onnx",)),
        id="app-stand-in",
        marks=PHONE,
    ),
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def device(kind, request):
    for opened in kind.open(request):
        try:
            opened.prepare()
            yield opened
        finally:
            opened.cleanup()


@pytest.fixture(params=sorted(SUFFIXES))
def runtime(request, kind):
    if request.param not in kind.runtimes:
        pytest.skip(f"{request.param}: see `runtimes`")
    return request.param


def job(model, runtime, **settings):
    return Job(model=model, runtime=runtime, **{"warmups": 2, "repeats": 5, **settings})


def test_it_identifies_itself_the_same_twice(device):
    info = device.info()
    assert info == device.info()
    assert info.name and info.cores >= 1 and info.ram_bytes > 2**20


def test_a_run_gives_what_was_asked_for_up_to_what_it_declares(device, kind, runtime, tmp_path):
    run = device.run(job(small_model(tmp_path, runtime), runtime))
    assert len(run.warmup_nanoseconds) == min(2, kind.most_warmups)
    assert len(run.sample_nanoseconds) == min(5, kind.most_repeats)
    assert min(run.sample_nanoseconds) > 0 and run.load_nanoseconds > 0
    assert run.versions and run.latency_source == kind.latency
    assert run.conditions_after.keys() <= run.conditions_before.keys()
    assert bool(run.conditions_before) == kind.has_conditions


def test_a_constant_of_32_mebibytes_shows_in_the_peak(device, runtime, tmp_path):
    peaks = []
    for model in (small_model(tmp_path, runtime), wide_model(tmp_path, runtime)):
        run = device.run(job(model, runtime, warmups=0, repeats=1))
        peaks.append(run.peak_bytes - run.baseline_bytes)
    # the runtime may hold the file and its own form of the weights at once, but no more than three copies
    assert WIDE_BYTES * 0.9 < peaks[1] - peaks[0] < WIDE_BYTES * 3.5


def refuses_outputs(device, model, runtime, folder):
    """What devices promise that compare outputs themselves."""
    given = job(model, runtime, input_file=folder / "in.npy")
    assert device.run(given).wrong_outputs == ""
    with pytest.raises(DeviceError, match="leave the output file out"):
        device.run(given.model_copy(update={"output_file": folder / "out.npz"}))


def test_floats_are_those_of_this_machine(device, kind, runtime, tmp_path):
    model, values = small_model(tmp_path, runtime), small_input(seed=5)
    np.save(tmp_path / "in.npy", values)
    if not kind.sends_outputs:
        refuses_outputs(device, model, runtime, tmp_path)
        return
    device.run(job(model, runtime, input_file=tmp_path / "in.npy", output_file=tmp_path / "out.npz"))
    (expected,) = runtime_module(runtime).load(model, threads=1).run([values])
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["output_0"], expected, rtol=0, atol=1e-5)


def test_whole_numbers_are_exactly_those_of_this_machine(device, kind, tmp_path):
    model = quantised_tflite(tmp_path)
    session = runtime_module("tflite").load(model, threads=1)
    stored = np.random.default_rng(1).integers(-128, 127, session.inputs[0].shape, np.int8)
    np.save(tmp_path / "in.npy", stored)
    if not kind.sends_outputs:
        refuses_outputs(device, model, "tflite", tmp_path)
        return
    device.run(job(model, "tflite", input_file=tmp_path / "in.npy", output_file=tmp_path / "out.npz"))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["output_0"], session.run([stored])[0])


def test_two_runs_agree_as_far_as_it_declares(device, kind, tmp_path):
    work = job(wide_model(tmp_path, "tflite"), "tflite", repeats=3)
    first, second = (device.run(work) for _ in range(2))
    if kind.repeats_within is None:  # a report judges such times by `stability`
        assert first.latency_source == "measured"
        return
    medians = [np.median(run.sample_nanoseconds) for run in (first, second)]
    assert abs(medians[1] / medians[0] - 1) <= kind.repeats_within
    assert first.counts == second.counts


def test_a_duration_makes_more_samples_than_the_repeats_or_is_refused(device, kind, tmp_path):
    work = job(small_model(tmp_path, "onnx"), "onnx", repeats=1, duration_seconds=0.1)
    if not kind.lasts:
        with pytest.raises(DeviceError, match=r"0\.1 s; leave the duration out"):
            device.run(work)
        return
    run = device.run(work)
    assert len(run.sample_nanoseconds) > 1
    assert sum(run.sample_nanoseconds) <= 0.15e9 + max(run.sample_nanoseconds)


def test_a_memory_limit_is_enforced_or_refused(device, kind, tmp_path):
    assert device.limits_memory == kind.limits_memory
    model = wide_model(tmp_path, "tflite")
    if not kind.limits_memory:
        with pytest.raises(DeviceError, match=r"cannot enforce a memory limit .8,000,000 bytes asked"):
            device.run(job(model, "tflite", memory_limit_bytes=8_000_000))
        return
    need = device.run(job(model, "tflite")).cgroup_peak_bytes
    over = device.run(job(model, "tflite", memory_limit_bytes=need // 3))
    assert over.out_of_memory and over.sample_nanoseconds == ()
    assert device.run(job(model, "tflite", memory_limit_bytes=need + 2**20)).sample_nanoseconds


def test_a_bad_file_is_refused_as_such(device, runtime, tmp_path):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    path.write_text("no model at all")
    with pytest.raises(FileFormatError, match=path.name):
        device.run(job(path, runtime))
    with pytest.raises(FileFormatError, match="text file"):
        bench(path, device=device)


def test_a_crash_of_the_runtime_is_a_failed_measurement(device, tmp_path):
    path = small_model(tmp_path, "executorch")
    # the name of the XNNPACK payload is no text any more: the runtime's own error message makes it abort
    path.write_bytes(path.read_bytes().replace(b"XH00", b"\xa7H00"))
    with pytest.raises(MeasurementError, match=rf"{path.name}: executorch") as caught:
        device.run(job(path, "executorch"))
    assert caught.value.exit_code == 3


def test_a_measurement_that_takes_too_long_is_ended_and_the_next_one_works(device, kind, tmp_path):
    model = small_model(tmp_path, "onnx")
    endless = {"duration_seconds": 10_000.0, "timeout_seconds": 2} if kind.lasts else {"timeout_seconds": 0.05}
    with pytest.raises(MeasurementError, match=r"no (result|end) .*after [\d.]+ s"):
        device.run(job(model, "onnx", **endless))
    assert device.run(job(model, "onnx")).sample_nanoseconds


def test_more_threads_than_cores_are_refused(device, tmp_path):
    with pytest.raises(DeviceError, match="64"):
        device.run(job(small_model(tmp_path, "onnx"), "onnx", threads=64))


def test_a_core_can_be_chosen_and_one_that_it_lacks_is_refused(device, kind, tmp_path):
    model = small_model(tmp_path, "tflite")
    # those that run on this machine have the cores that this process may use
    first = min(os.sched_getaffinity(0)) if kind.repeats_within is None else 0
    if kind.chooses_cores:
        assert device.run(job(model, "tflite", cpu_mask=1 << first)).sample_nanoseconds
    with pytest.raises(DeviceError, match=r"(?i)core|mask"):
        device.run(job(model, "tflite", cpu_mask=1 << 60))


def test_cleaning_up_twice_is_safe_and_it_can_be_prepared_again(device, tmp_path):
    model = small_model(tmp_path, "onnx")
    for step in itertools.chain([device.cleanup] * 2, [device.prepare] * 2):
        step()
    assert device.run(job(model, "onnx")).sample_nanoseconds
