"""Model files as other people's tools write them: no phonefit description beside them.

Each is built once per process. The `small` network is two layers on a picture; `wide` holds one constant of 32 MiB.
"""

import functools
import tempfile
from pathlib import Path

import numpy as np

SUFFIX = {"executorch": ".pte", "tflite": ".tflite", "onnx": ".onnx"}
SMALL_SHAPE = (1, 3, 16, 16)
WIDE_FEATURES = 2048, 4096
WIDE_BYTES = 4 * WIDE_FEATURES[0] * WIDE_FEATURES[1]


@functools.cache
def small_network():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 4)
    ).eval()


@functools.cache
def wide_network():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Linear(*WIDE_FEATURES, bias=False).eval()


def small_input(seed: int = 0):
    return np.random.default_rng(seed).standard_normal(SMALL_SHAPE).astype(np.float32)


def small_model(folder: Path, runtime: str) -> Path:
    """The small network as a file of this runtime."""
    return _write(folder, "small", runtime, _small_bytes(runtime))


def wide_model(folder: Path, runtime: str) -> Path:
    """The wide network as a file of this runtime."""
    return _write(folder, "wide", runtime, _wide_bytes(runtime))


def quantised_tflite(folder: Path) -> Path:
    """The small network in int8, quantised by Google's ai-edge-quantizer from the .tflite file."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(small_model(folder, "tflite")), recipe.static_wi8_ai8())
    calibration = tool.calibrate({"serving_default": [{"args_0": small_input(seed)} for seed in range(8)]})
    path = folder / "quantised.tflite"
    tool.quantize(calibration).export_model(str(path))
    return path


def _write(folder: Path, name: str, runtime: str, content: bytes) -> Path:
    path = folder / (name + SUFFIX[runtime])
    path.write_bytes(content)
    return path


@functools.cache
def _small_bytes(runtime: str) -> bytes:
    import torch

    if runtime == "onnx":
        return _small_onnx()
    return _EXPORTS[runtime](small_network(), torch.zeros(SMALL_SHAPE))


@functools.cache
def _wide_bytes(runtime: str) -> bytes:
    import torch

    if runtime == "onnx":
        return _wide_onnx()
    return _EXPORTS[runtime](wide_network(), torch.zeros(1, WIDE_FEATURES[0]))


def _export_executorch(network, example) -> bytes:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(network, (example,))
    return to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


def _export_tflite(network, example) -> bytes:
    import litert_torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        litert_torch.convert(network, (example,)).export(str(path))
        return path.read_bytes()


_EXPORTS = {"executorch": _export_executorch, "tflite": _export_tflite}


def _small_onnx() -> bytes:
    """With a free batch size, as most exporters leave it."""
    from onnx import helper, numpy_helper

    convolution, _, _, linear = small_network()
    weights = {
        "kernel": convolution.weight,
        "kernel_bias": convolution.bias,
        "matrix": linear.weight,
        "matrix_bias": linear.bias,
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "kernel_bias"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix", "matrix_bias"], ["y"], transB=1),
    ]
    constants = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()]
    return onnx_bytes(nodes, {"x": ("FLOAT", ["batch", 3, 16, 16])}, {"y": ("FLOAT", ["batch", 4])}, constants)


def _wide_onnx() -> bytes:
    from onnx import helper, numpy_helper

    matrix = numpy_helper.from_array(wide_network().weight.detach().numpy(), "matrix")
    node = helper.make_node("Gemm", ["x", "matrix"], ["y"], transB=1)
    shapes = {"x": ("FLOAT", [1, WIDE_FEATURES[0]])}, {"y": ("FLOAT", [1, WIDE_FEATURES[1]])}
    return onnx_bytes([node], *shapes, [matrix])


def onnx_bytes(nodes, inputs, outputs, constants=()) -> bytes:
    """A checked ONNX model. `inputs` and `outputs`: name -> (element type, shape)."""
    from onnx import TensorProto, checker, helper

    def values(named):
        return [
            helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
            for name, (kind, shape) in named.items()
        ]

    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    return model.SerializeToString()


def lookup_model(folder, runtime):
    """A row of a table plus an offset, and twice that: an integer input, a float input, two outputs."""
    path = folder / f"lookup{SUFFIX[runtime]}"
    path.write_bytes(_LOOKUP[runtime]())
    return path


def _lookup_network():
    import torch

    class Lookup(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.arange(8, dtype=torch.float32).reshape(4, 2))

        def forward(self, place, offset):
            row = torch.nn.functional.embedding(place, self.table) + offset
            return row, row * 2

    return Lookup().eval(), (torch.tensor([1]), torch.zeros(1, 2))


def _lookup_executorch():
    import torch
    from executorch.exir import to_edge_transform_and_lower

    network, example = _lookup_network()
    return to_edge_transform_and_lower(torch.export.export(network, example)).to_executorch().buffer


def _lookup_tflite():
    import litert_torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        litert_torch.convert(*_lookup_network()).export(str(path))
        return path.read_bytes()


def _lookup_onnx():
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["table", "place"], ["taken"], axis=0),
        helper.make_node("Add", ["taken", "offset"], ["row"]),
        helper.make_node("Add", ["row", "row"], ["twice"]),
    ]
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")
    inputs = {"place": ("INT64", [1]), "offset": ("FLOAT", [1, 2])}
    return onnx_bytes(nodes, inputs, {"row": ("FLOAT", [1, 2]), "twice": ("FLOAT", [1, 2])}, [table])


_LOOKUP = {"executorch": _lookup_executorch, "tflite": _lookup_tflite, "onnx": _lookup_onnx}
