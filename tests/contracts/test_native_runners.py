"""What every native runner promises: the outputs of the Python runtime, and one command line and result for all."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from phonefit.device_bench.device import Job
from phonefit.device_bench.native_runner import (
    RunnerFolder,
    command,
    default_root,
    describe_command,
    host_architecture,
    input_bytes,
    parse_result,
    read_outputs,
    runner_for,
)
from phonefit.device_bench.runtimes import RUNTIMES, runtime_module
from tests.foreign_models import (
    WIDE_BYTES,
    lookup_model,
    quantised_tflite,
    small_input,
    small_model,
    wide_model,
)

pytestmark = pytest.mark.emulator


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request):
    return request.param


@pytest.fixture
def runner(runtime):
    return built(runtime)


def built(runtime):
    program = runner_for(runtime)
    if program is None:
        pytest.fail("the native runners are not built from the present sources and packages; run: make native")
    return program


def call(line, folder):
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def run(runner, model, folder, inputs=(), outputs=1, **settings):
    """The result and the outputs of a run on these input arrays."""
    for number, array in enumerate(inputs):
        (folder / f"in{number}").write_bytes(np.ascontiguousarray(array).tobytes())
    job = Job(model=model, runtime="onnx", **{"warmups": 1, "repeats": 2, **settings})
    names = [f"out{number}" for number in range(outputs)]
    ins = [f"in{number}" for number in range(len(inputs))]
    line = command(runner, job, model=str(model), result="result", inputs=ins, outputs=names)
    done = call(line, folder)
    assert done.returncode == 0, done.stderr
    result = parse_result((folder / "result").read_text())
    return result, read_outputs(result, [folder / name for name in names])


def test_float_outputs_equal_those_of_the_python_runtime(runner, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    for seed in range(3):
        result, (output,) = run(runner, model, tmp_path, [small_input(seed)])
        (expected,) = runtime_module(runtime).load(model, threads=1).run([small_input(seed)])
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)
    assert result.runtime == runtime
    assert [(each.shape, each.dtype) for each in result.inputs] == [((1, 3, 16, 16), "float32")]


def test_int8_outputs_equal_those_of_the_python_runtime(tmp_path):
    model = quantised_tflite(tmp_path)
    session = runtime_module("tflite").load(model, threads=1)
    stored = np.random.default_rng(3).integers(-128, 128, session.inputs[0].shape, dtype=np.int8)
    result, (output,) = run(built("tflite"), model, tmp_path, [stored])
    np.testing.assert_array_equal(output, session.run([stored])[0])
    for described, spec in zip((*result.inputs, *result.outputs), (*session.inputs, *session.outputs), strict=True):
        assert (described.name, described.dtype, described.zero_point) == (spec.name, "int8", spec.zero_point)
        assert described.scale == pytest.approx(spec.scale)


def test_several_inputs_keep_their_order_and_number_format(runner, runtime, tmp_path):
    model = lookup_model(tmp_path, runtime)
    session = runtime_module(runtime).load(model, threads=1)
    kinds = sorted(spec.dtype for spec in session.inputs)
    assert kinds == ["float32", "int32" if runtime == "tflite" else "int64"]  # LiteRT's converter narrows it
    offset = np.array([[100, 200]], np.float32)
    arrays = [offset if spec.dtype == "float32" else np.array([2], spec.dtype) for spec in session.inputs]
    _, outputs = run(runner, model, tmp_path, arrays, outputs=2)
    np.testing.assert_allclose(sorted(output.sum() for output in outputs), [309, 618])
    for output, expected in zip(outputs, session.run(arrays), strict=True):
        np.testing.assert_allclose(output, expected)


def test_two_threads_give_the_same_outputs_as_one(runner, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    (one, (expected,)), (two, (output,)) = (
        run(runner, model, tmp_path, [small_input()], threads=threads) for threads in (1, 2)
    )
    assert (one.threads, two.threads) == (1, 2)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5)


def test_a_result_has_what_was_asked_for(runner, runtime, tmp_path):
    result, _ = run(runner, small_model(tmp_path, runtime), tmp_path, warmups=3, repeats=7)
    assert (len(result.warmup_ns), len(result.sample_ns)) == (3, 7)
    assert min(result.sample_ns) > 0 and result.load_ns > 0
    assert result.peak_bytes >= result.baseline_bytes > 2**20
    assert result.version == next(iter(runtime_module(runtime).versions().values()))


def test_a_duration_makes_more_samples_than_the_repeats(runner, runtime, tmp_path):
    result, _ = run(runner, small_model(tmp_path, runtime), tmp_path, repeats=1, duration_seconds=0.05)
    assert len(result.sample_ns) > 1
    assert sum(result.sample_ns) <= 0.05e9 + max(result.sample_ns)


def test_a_constant_of_32_mebibytes_shows_in_the_peak(runner, runtime, tmp_path):
    peaks = []
    for model in (small_model(tmp_path, runtime), wide_model(tmp_path, runtime)):
        result, _ = run(runner, model, tmp_path)
        peaks.append(result.peak_bytes - result.baseline_bytes)
    # the runtime may hold the file and its own form of the weights at once, but no more than three copies
    assert WIDE_BYTES * 0.9 < peaks[1] - peaks[0] < WIDE_BYTES * 3.5


def test_the_reference_loop_is_timed_as_often_as_asked_before_and_after(runner, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    job = Job(model=model, runtime=runtime, warmups=1, repeats=3)
    line = command(runner, job, model=str(model), result="result", reference=4, parent=os.getpid())
    assert call(line, tmp_path).returncode == 0
    result = parse_result((tmp_path / "result").read_text())
    assert (len(result.reference_before_ns), len(result.reference_after_ns)) == (4, 4)
    assert min(*result.reference_before_ns, *result.reference_after_ns) > 0
    without, _ = run(runner, model, tmp_path)
    assert without.reference_before_ns == without.reference_after_ns == ()


def test_it_tells_when_since_the_device_booted_the_inferences_were_timed(runner, runtime, tmp_path):
    begin = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    result, _ = run(runner, small_model(tmp_path, runtime), tmp_path, warmups=2, repeats=5)
    end = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert begin < result.timed_from_ns < result.timed_until_ns < end
    assert result.timed_until_ns - result.timed_from_ns >= sum(result.sample_ns)


def test_a_runner_whose_starter_has_ended_does_not_measure(runner, runtime, tmp_path):
    line = [str(runner), "--model", str(small_model(tmp_path, runtime)), "--result", "result", "--parent", "1"]
    done = call(line, tmp_path)
    assert done.returncode == 3 and "process 1, which started it, has ended" in done.stderr
    assert not (tmp_path / "result").exists()


def test_inputs_from_a_seed_are_the_same_each_time_and_those_of_another_differ(runner, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    (_, (first,)), (_, (again,)), (_, (other,)) = (run(runner, model, tmp_path, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_a_described_model_takes_the_same_inputs_as_in_python(runner, runtime, tmp_path):
    model = small_model(tmp_path, runtime)
    assert call(describe_command(runner, model=str(model), result="described"), tmp_path).returncode == 0
    described = parse_result((tmp_path / "described").read_text())
    assert described.sample_ns == described.warmup_ns == ()
    np.save(tmp_path / "own.npy", small_input(4))
    job = Job(model=model, runtime=runtime, input_file=tmp_path / "own.npy")
    assert input_bytes(described, job) == [small_input(4).tobytes()]


def test_marks_change_nothing_where_nobody_looks_for_them(runner, runtime, tmp_path):
    line = [str(runner), "--model", str(small_model(tmp_path, runtime)), "--result", "result", "--marks"]
    assert call(line, tmp_path).returncode == 0


def test_a_runtime_keeps_and_reports_nothing_about_what_it_ran(runner, runtime, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    line = [str(runner), "--model", str(small_model(tmp_path, runtime)), "--result", str(tmp_path / "result")]
    # without CI, in which ONNX Runtime's telemetry is off by itself
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home)}
    subprocess.run(line, cwd=home, env=environment, capture_output=True, timeout=60, check=True)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"no model at all" * 100, "model.bin: "), (b"", "the file is empty"), (None, "No such file")]
)
def test_a_bad_file_is_refused_in_one_line(runner, tmp_path, content, said):
    model = tmp_path / "model.bin"
    if content is not None:
        model.write_bytes(content)
    done = call([str(runner), "--model", str(model), "--result", "result"], tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{Path(runner).name}: {model}") and said in last
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage: --model FILE"),
        (("--model",), "--model needs a value"),
        (("--model", "m", "--result", "r", "--speed", "9"), "--speed is unknown"),
        (("--model", "m", "--result", "r", "--threads", "none"), "--threads none: takes a whole number of at least 1"),
        (("--model", "m", "--result", "r", "--seconds", "-1"), "--seconds -1: takes a positive number"),
    ],
)
def test_wrong_use_is_refused_in_one_line(runner, tmp_path, arguments, said):
    done = call([str(runner), *arguments], tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]


def test_an_input_of_another_size_is_refused(runner, runtime, tmp_path):
    (tmp_path / "in").write_bytes(b"1234")
    model = small_model(tmp_path, runtime)
    done = call([str(runner), "--model", str(model), "--result", "result", "--input", "in"], tmp_path)
    assert done.returncode == 2
    assert "in: 4 bytes, but input" in done.stderr and "takes 3072" in done.stderr


def test_a_result_that_cannot_be_written_is_a_failure(runner, runtime, tmp_path):
    line = [str(runner), "--model", str(small_model(tmp_path, runtime)), "--result", "no/such/folder"]
    done = call(line, tmp_path)
    assert done.returncode == 3
    assert "no/such/folder" in done.stderr.strip().splitlines()[-1]


def test_a_folder_runs_wherever_it_is_copied_to(tmp_path):
    built("tflite")
    copy = tmp_path / "elsewhere"
    shutil.copytree(default_root() / host_architecture(), copy)
    program = RunnerFolder(copy).runner("tflite")
    found = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    assert f"{copy.resolve()}/bin/../lib/libLiteRt.so" in found
