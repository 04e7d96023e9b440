"""Files with inputs of other kinds than one picture."""

import numpy as np
import pytest

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.inputs import make_inputs
from phonefit.device_bench.runtimes import onnx as runtime
from phonefit.models.artifact import Artifact
from phonefit.models.errors import FileFormatError
from phonefit.models.spec import Preprocess, TensorSpec
from tests.foreign_models import onnx_bytes


@pytest.fixture
def save(tmp_path):
    def write(*arguments):
        path = tmp_path / "model.onnx"
        path.write_bytes(onnx_bytes(*arguments))
        return path

    return write


def test_several_inputs_of_several_types_run_on_generated_inputs(save):
    from onnx import helper

    nodes = [
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Add", ["row", "offset"], ["y"]),
    ]
    inputs = {"table": ("FLOAT", [5, 3]), "index": ("INT64", ["batch"]), "offset": ("FLOAT", [1, 3])}
    session = runtime.load(save(nodes, inputs, {"y": ("FLOAT", ["batch", 3])}), threads=1)
    assert [(spec.name, spec.shape, spec.dtype) for spec in session.inputs] == [
        ("table", (5, 3), "float32"),
        ("index", (1,), "int64"),
        ("offset", (1, 3), "float32"),
    ]
    arrays = make_inputs(session.inputs, seed=0)
    np.testing.assert_allclose(session.run(arrays)[0], arrays[0][arrays[1]] + arrays[2])


def test_a_free_height_is_refused_with_what_to_do(save):
    from onnx import helper

    shapes = {"x": ("FLOAT", ["batch", 3, "height", 8])}, {"y": ("FLOAT", ["batch", 3, "height", 8])}
    path = save([helper.make_node("Relu", ["x"], ["y"])], *shapes)
    with pytest.raises(DeviceError, match=r"'x'.*height.*fixed input size"):
        runtime.load(path, threads=1)


def test_a_damaged_graph_is_refused(save):
    from onnx import helper

    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ("FLOAT", [1, 4])}, {"y": ("FLOAT", [1, 4])})
    # the node now reads a tensor that nobody makes
    path.write_bytes(path.read_bytes().replace(b"\x0a\x01x\x12\x01y", b"\x0a\x01z\x12\x01y"))
    with pytest.raises((FileFormatError, DeviceError), match=r"model\.onnx: ONNX Runtime"):
        runtime.load(path, threads=1)


def test_the_layout_comes_from_the_description_beside_the_file(save):
    from onnx import helper

    shape = [1, 3, 8, 3]  # three at both places: the shape does not tell
    path = save([helper.make_node("Relu", ["x"], ["y"])], {"x": ("FLOAT", shape)}, {"y": ("FLOAT", shape)})
    assert runtime.load(path, threads=1).inputs[0].layout == "other"
    source = TensorSpec(name="x", shape=tuple(shape), dtype="float32", layout="NHWC")
    Artifact(
        file=path.name,
        runtime="onnx",
        backend="CPUExecutionProvider",
        precision="fp32",
        sha256="",
        bytes=path.stat().st_size,
        inputs=(source,),
        outputs=(source,),
        task="classification",
        labels=(),
        preprocess=Preprocess(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1)),
    ).save(path.with_name("model.onnx.json"))
    assert runtime.load(path, threads=1).inputs[0].layout == "NHWC"
    path.with_name("model.onnx.json").write_text('{"made by": "somebody else"}')
    assert runtime.load(path, threads=1).inputs[0].layout == "other"
