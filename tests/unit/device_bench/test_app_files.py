"""The job for a model and the files that travel with it. Real runtime, no device."""

import numpy as np

from phonefit.device_bench.app_files import pack
from phonefit.device_bench.device import Job
from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.record import file_digest
from tests.foreign_models import small_input, small_model


def test_what_is_sent_is_the_input_and_what_this_machine_computes_from_it(tmp_path):
    model = small_model(tmp_path, "onnx")
    np.save(tmp_path / "in.npy", small_input(seed=4))
    parcel = pack(Job(model=model, runtime="onnx", input_file=tmp_path / "in.npy", repeats=7), tmp_path)
    job = parcel.job
    assert (job.sha256, job.bytes, job.repeats, job.description) == (file_digest(model), model.stat().st_size, 7, None)
    assert parcel.files.keys() == {job.model, job.inputs[0].path, job.expected[0].path}
    assert all(file_digest(parcel.files[item.path]) == item.sha256 for item in (*job.inputs, *job.expected))
    assert (job.inputs[0].dtype, job.inputs[0].shape) == ("float32", (1, 3, 16, 16))
    sent, wanted = (np.fromfile(parcel.files[item.path], item.dtype) for item in (job.inputs[0], job.expected[0]))
    np.testing.assert_array_equal(sent.reshape(job.inputs[0].shape), small_input(seed=4))
    (here,) = runtime_module("onnx").load(model, 1).run([small_input(seed=4)])
    np.testing.assert_array_equal(wanted.reshape(here.shape), here)


def test_a_model_that_is_there_already_is_not_sent_and_no_name_comes_twice(tmp_path):
    job = Job(model=small_model(tmp_path, "onnx"), runtime="onnx")
    first, second = (pack(job, tmp_path, on_phone="/there/small.onnx") for _ in range(2))
    assert first.job.model == "/there/small.onnx" and "/there/small.onnx" not in first.files
    assert first.job.id != second.job.id
