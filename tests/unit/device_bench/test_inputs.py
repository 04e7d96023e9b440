import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.inputs import make_inputs
from phonefit.device_bench.runtimes.specs import guess_layout
from phonefit.models.spec import TensorSpec

QUANTISED = TensorSpec(name="x", shape=(1, 4), dtype="int8", scale=0.5, zero_point=-1)


def test_the_same_seed_gives_the_same_inputs():
    specs = (TensorSpec(name="a", shape=(2, 3), dtype="float32"), QUANTISED)
    for first, second in zip(make_inputs(specs, 1), make_inputs(specs, 1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(make_inputs(specs, 1)[0], make_inputs(specs, 2)[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_inputs_have_the_shape_and_type_of_the_file(dtype):
    (array,) = make_inputs((TensorSpec(name="x", shape=(2, 5), dtype=dtype),), 0)
    assert (array.shape, array.dtype) == ((2, 5), np.dtype(dtype))


def test_real_values_from_a_file_are_quantised_as_the_model_asks(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0, 1, -1, 1000]], np.float32))
    (array,) = make_inputs((QUANTISED,), 0, tmp_path / "x.npy")
    assert array.dtype == np.int8
    assert array.tolist() == [[-1, 1, -3, 127]]


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(DeviceError, match=r"shape \[2, 4\], but input 'x' takes \[1, 4\]"):
        make_inputs((QUANTISED,), 0, tmp_path / "x.npy")
    (tmp_path / "y.npy").write_text("1 2 3")
    with pytest.raises(DeviceError, match=r"y\.npy: not a readable \.npy file"):
        make_inputs((QUANTISED,), 0, tmp_path / "y.npy")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 224, 224), "NCHW"),
        ((1, 224, 224, 3), "NHWC"),
        ((1, 1, 28, 28), "NCHW"),
        ((1, 3, 3, 3), "other"),
        ((1, 16, 16, 16), "other"),
        ((1, 10), "other"),
    ],
)
def test_layout_is_guessed_only_where_the_shape_tells(shape, layout):
    assert guess_layout(shape) == layout
