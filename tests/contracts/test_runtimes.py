"""What every runtime promises. A new one is a line in RUNTIMES and an export in tests/foreign_models.py."""

import os
import subprocess
import sys

import numpy as np
import pytest

from phonefit.device_bench.device import MeasurementError
from phonefit.device_bench.runtimes import RUNTIMES, runtime_module
from phonefit.device_bench.runtimes.detect import runtime_of
from phonefit.device_bench.runtimes.runtime import to_real, to_stored
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError, PhonefitError, UnknownNameError
from tests.foreign_models import (
    SMALL_SHAPE,
    lookup_model,
    quantised_tflite,
    small_input,
    small_model,
    small_network,
)


@pytest.fixture(params=sorted(RUNTIMES))
def runtime(request):
    return request.param


def test_specs_are_those_of_the_file(runtime, tmp_path):
    session = runtime_module(runtime).load(small_model(tmp_path, runtime), threads=1)
    (source,), (target,) = session.inputs, session.outputs
    assert (source.shape, source.dtype, source.layout, source.scale) == (SMALL_SHAPE, "float32", "NCHW", None)
    assert (target.shape, target.dtype, target.scale) == ((1, 4), "float32", None)


def test_outputs_equal_those_of_pytorch(runtime, tmp_path):
    import torch

    session = runtime_module(runtime).load(small_model(tmp_path, runtime), threads=1)
    for seed in range(3):
        with torch.no_grad():
            expected = small_network()(torch.from_numpy(small_input(seed))).numpy()
        (output,) = session.run([small_input(seed)])
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_an_output_stays_valid_after_the_next_run(runtime, tmp_path):
    session = runtime_module(runtime).load(small_model(tmp_path, runtime), threads=1)
    (first,) = session.run([small_input(0)])
    kept = first.copy()
    session.run([small_input(1)])
    np.testing.assert_array_equal(first, kept)


def test_an_inference_that_the_runtime_gives_up_is_a_failed_measurement(runtime, tmp_path):
    model = lookup_model(tmp_path, runtime)
    session = runtime_module(runtime).load(model, threads=1)
    outside = [np.full(spec.shape, 99, spec.dtype) for spec in session.inputs]
    with pytest.raises(MeasurementError, match=rf"lookup\{SUFFIXES[runtime]}: .* failed while running it: ") as caught:
        session.run(outside)
    assert caught.value.exit_code == 3


def test_two_threads_give_the_same_output_as_one(runtime, tmp_path):
    # a fresh process: the thread count of some runtimes belongs to the process
    script = (
        "import sys, numpy as np; from pathlib import Path; from phonefit.device_bench.runtimes import runtime_module\n"
        "session = runtime_module(sys.argv[1]).load(Path(sys.argv[2]), threads=2)\n"
        "np.save(sys.argv[4], session.run([np.load(sys.argv[3])])[0])\n"
    )
    model = small_model(tmp_path, runtime)
    np.save(tmp_path / "in.npy", small_input())
    arguments = [runtime, str(model), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)
    (expected,) = runtime_module(runtime).load(model, threads=1).run([small_input()])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-5)


def test_its_file_is_recognised(runtime, tmp_path):
    assert runtime_of(small_model(tmp_path, runtime)) == runtime


def test_a_text_file_is_refused_by_name(runtime, tmp_path):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    path.write_text("version https://git-lfs.github.com/spec/v1\nsize 13975584\n")
    with pytest.raises(FileFormatError, match=r"model\.\w+: .*it is a text file"):
        runtime_module(runtime).load(path, threads=1)


def test_an_empty_and_a_missing_file_are_refused(runtime, tmp_path):
    path = tmp_path / f"model{SUFFIXES[runtime]}"
    with pytest.raises(FileFormatError, match="no such file"):
        runtime_module(runtime).load(path, threads=1)
    path.touch()
    with pytest.raises(FileFormatError, match="is empty"):
        runtime_module(runtime).load(path, threads=1)


def test_a_file_cut_off_anywhere_is_refused(runtime, tmp_path):
    whole = small_model(tmp_path, runtime).read_bytes()
    path = tmp_path / f"cut{SUFFIXES[runtime]}"
    for length in (1, 7, 9, 30, 41, *range(100, len(whole), len(whole) // 12), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="cut"):
            runtime_module(runtime).load(path, threads=1)


def test_a_file_of_another_runtime_is_named_as_such(runtime, tmp_path):
    other = next(name for name in sorted(RUNTIMES) if name != runtime)
    path = tmp_path / f"wrong{SUFFIXES[runtime]}"
    path.write_bytes(small_model(tmp_path, other).read_bytes())
    with pytest.raises(FileFormatError, match=rf"it is a \{SUFFIXES[other]} model"):
        runtime_of(path)


def test_an_int8_file_tells_its_scale_and_zero_point(tmp_path):
    module = runtime_module("tflite")
    session = module.load(quantised_tflite(tmp_path), threads=1)
    (source,), (target,) = session.inputs, session.outputs
    assert source.dtype == target.dtype == "int8"
    expected = module.load(tmp_path / "small.tflite", threads=1).run([small_input(0)])[0]
    real = to_real(session.run([to_stored(small_input(0), source)])[0], target)
    np.testing.assert_allclose(real, expected, atol=0.03)  # a tenth of the outputs' spread


def test_versions_name_what_runs_the_model(runtime):
    versions = runtime_module(runtime).versions()
    assert versions and all(text[0].isdigit() for text in versions.values())


def test_an_unknown_runtime_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=", ".join(sorted(RUNTIMES))):
        runtime_module("coreml")


def test_executorch_refuses_another_thread_count_under_a_living_session(tmp_path):
    module = runtime_module("executorch")
    session = module.load(small_model(tmp_path, "executorch"), threads=1)
    with pytest.raises(PhonefitError, match="2 thread"):
        module.load(small_model(tmp_path, "executorch"), threads=2)
    assert session.run([small_input()])[0].shape == (1, 4)


def test_onnx_runtime_sends_no_usage_data():
    """Version 1.29 and newer do by default, unless this is set before the import."""
    script = "import os; from phonefit.device_bench.runtimes import runtime_module as m; m('onnx').start()"
    script += "; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
