"""Calling the native runners and reading what they answer, without one."""

import json

import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.native_runner import (
    STAMP,
    Built,
    RunnerFolder,
    command,
    failure,
    input_bytes,
    inputs_digest,
    parse_result,
    raw_run,
    read_outputs,
    runner_for,
)
from phonefit.models.errors import FileFormatError

RESULT = {
    "schema": 1,
    "runtime": "tflite",
    "version": "2.3.0",
    "threads": 1,
    "load_ns": 5,
    "warmup_ns": [4],
    "sample_ns": [2, 3],
    "baseline_bytes": 100,
    "peak_bytes": 300,
    "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 2], "scale": 0.5, "zero_point": 3}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 3]}],
}


@pytest.fixture
def job(tmp_path):
    return Job(model=tmp_path / "model.tflite", runtime="tflite", threads=2, warmups=1, repeats=3, seed=7)


def test_the_command_line_carries_the_whole_job(job):
    job = job.model_copy(update={"duration_seconds": 1.5})
    line = command("bin/run", job, model="m", result="r", inputs=["a", "b"], outputs=["c"], marks=True)
    assert " ".join(line) == (
        "bin/run --model m --result r --input a --input b --output c --threads 2 --warmups 1 --repeats 3 "
        "--seconds 1.5 --seed 7 --marks"
    )
    line = command("bin/run", job, model="m", result="r", reference=5, parent=321)
    assert " ".join(line).endswith("--seed 7 --reference 5 --parent 0000000321")


def test_a_result_becomes_a_run():
    run = raw_run(parse_result(json.dumps(RESULT)))
    assert (run.load_nanoseconds, run.warmup_nanoseconds, run.sample_nanoseconds) == (5, (4,), (2, 3))
    assert (run.baseline_bytes, run.peak_bytes) == (100, 300)
    assert run.versions == {"ai-edge-litert": "2.3.0"}
    assert run.reference_before_nanoseconds == () and run.timed_from_seconds is None


def test_reference_loops_and_place_in_time_become_those_of_the_run():
    more = {"reference_before_ns": [7], "reference_after_ns": [8], "timed_from_ns": 1_500_000_000, "timed_until_ns": 2}
    run = raw_run(parse_result(json.dumps({**RESULT, **more})))
    assert (run.reference_before_nanoseconds, run.reference_after_nanoseconds) == ((7,), (8,))
    assert (run.timed_from_seconds, run.timed_until_seconds) == (1.5, 2e-9)


@pytest.mark.parametrize(
    ("change", "said"), [({"schema": 2}, "schema"), ({"sample_ns": "fast"}, "sample_ns"), ({"inputs": None}, "inputs")]
)
def test_another_schema_or_a_wrong_field_is_named(change, said):
    with pytest.raises(MeasurementError, match=f"native runner: {said}"):
        parse_result(json.dumps({**RESULT, **change}))


def test_half_a_result_is_no_result():
    with pytest.raises(MeasurementError, match="unusable result"):
        parse_result(json.dumps(RESULT)[:40])


def test_a_refused_file_is_the_users_to_mend(job):
    error = failure(job, 2, "INFO: hello\nphonefit_tflite: m: not a .tflite model (LiteRT status 500)\n")
    assert isinstance(error, FileFormatError) and error.exit_code == 2
    assert str(error) == f"{job.model}: m: not a .tflite model (LiteRT status 500)"


def test_a_failure_while_running_is_a_failed_measurement(job):
    error = failure(job, 3, "phonefit_tflite: running failed (LiteRT status 3)\n")
    assert isinstance(error, MeasurementError) and error.exit_code == 3
    assert "exit status 3: running failed (LiteRT status 3)" in str(error)


def test_a_crash_tells_the_last_words(job):
    assert "its last words:\nterminate called" in str(failure(job, -6, "terminate called\n"))


def test_a_persons_input_is_quantised_as_the_model_asks(job, tmp_path):
    np.save(tmp_path / "in.npy", np.array([[1.0, -1.0]], np.float32))
    job = job.model_copy(update={"input_file": tmp_path / "in.npy"})
    assert input_bytes(parse_result(json.dumps(RESULT)), job) == [np.array([5, 1], np.int8).tobytes()]


def test_a_persons_input_of_another_shape_is_refused(job, tmp_path):
    np.save(tmp_path / "in.npy", np.zeros((1, 4), np.float32))
    job = job.model_copy(update={"input_file": tmp_path / "in.npy"})
    with pytest.raises(DeviceError, match=r"takes \[1, 2\]"):
        input_bytes(parse_result(json.dumps(RESULT)), job)


def test_outputs_are_read_in_their_shape_and_number_format(tmp_path):
    (tmp_path / "y").write_bytes(np.array([1, 2, 3], "<f4").tobytes())
    (output,) = read_outputs(parse_result(json.dumps(RESULT)), [tmp_path / "y"])
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, [[1, 2, 3]])


def test_an_output_of_another_size_is_a_failed_measurement(tmp_path):
    (tmp_path / "y").write_bytes(b"12345678")
    with pytest.raises(MeasurementError, match="output 'y'"):
        read_outputs(parse_result(json.dumps(RESULT)), [tmp_path / "y"])


def test_a_runner_of_other_sources_counts_as_not_built(tmp_path):
    folder = tmp_path / "aarch64"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin/phonefit_onnx"
    program.write_bytes(b"program")
    assert runner_for("onnx", "aarch64", tmp_path) is None
    Built(inputs="of another day", files={}).save(folder / STAMP)
    assert runner_for("onnx", "aarch64", tmp_path) is None
    Built(inputs=inputs_digest(), files={}).save(folder / STAMP)
    assert runner_for("onnx", "aarch64", tmp_path) == program
    assert runner_for("tflite", "aarch64", tmp_path) is None


def test_a_changed_file_of_a_folder_is_noticed(tmp_path):
    (tmp_path / "lib.so").write_bytes(b"code")
    Built(inputs="", files={"lib.so": "0" * 64}).save(tmp_path / STAMP)
    assert not RunnerFolder(tmp_path).is_unchanged()
