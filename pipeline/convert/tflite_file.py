"""Reads and rewrites .tflite files: smaller without changing what they compute, and what in them computes in float.

Of a quantised file's bytes that are not weights, most hold names of tensors, and a scale and a 64-bit zero point for
each output channel of each weight and each bias. No runtime reads the names of inner tensors, and all zero points are
zero: a flatbuffer may point to one vector from many places, where the converter writes each anew. LiteRT refuses a
file with fewer zero points than scales, and XNNPACK a bias without scales, so these stay.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of the data of buffers: `force_align: 16` in tflite's schema.fbs; kernels read them in place
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_CASTS = ("QUANTIZE", "DEQUANTIZE")


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that stores equal vectors of numbers once, and aligns bytes as the schema demands."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._known: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: "NDArray[Any]") -> int:
        """Offset of a vector with this content."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._known:
            if x.dtype.itemsize == 1:
                self.Prep(_ALIGNMENT, x.size)
            self._known[key] = super().CreateNumpyVector(x)
        return self._known[key]


@dataclass(frozen=True)
class Arithmetic:
    """What computes in float in a .tflite file, and the casts of activations between float and integers."""

    casts: int
    float_layers: int
    layers: int
    float_operators: "Mapping[str, int]"


def unpacked(content: bytes) -> Any:
    """The objects of a .tflite file: a ModelT of the schema, with all constants inside it.

    LiteRT's quantiser of files writes the constants of larger networks behind the flatbuffer, at `offset`.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1: inside
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def packed(model: Any) -> bytes:
    """Bytes of a .tflite file of a ModelT, with equal vectors stored once."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            parameters = tensor.quantization
            if parameters is not None and parameters.zeroPoint is not None:
                parameters.zeroPoint = np.asarray(parameters.zeroPoint, dtype=np.int64)
    builder = _SharingBuilder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def compacted(content: bytes) -> bytes:
    """The same model, smaller: equal vectors shared, names kept for inputs and outputs only."""
    model = unpacked(content)
    for graph in model.subgraphs:
        named = {*graph.inputs, *graph.outputs}
        for place, tensor in enumerate(graph.tensors):
            if place not in named:
                tensor.name = None
    return packed(model)


def operator_names(model: Any) -> list[str]:
    """Name of the operator behind each operator code of a ModelT, for example "CONV_2D"."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[code] for code in codes]


def constant(model: Any, tensor: Any) -> "NDArray[Any] | None":
    """Values of a constant float32 or float16 tensor, flat; None for other ones."""
    from ai_edge_litert import schema_py_generated as schema

    known = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    data = model.buffers[tensor.buffer].data
    if tensor.type not in known or data is None or not len(data):
        return None
    return np.frombuffer(np.asarray(data, dtype=np.uint8).tobytes(), known[tensor.type])


def same_values(values: "NDArray[Any]", weight: "Tensor") -> bool:
    """Whether a constant holds the values of a PyTorch weight, in whatever layout."""
    return len(values) == weight.numel() and np.allclose(np.sort(values), np.sort(weight.numpy(), axis=None))


def float_constants(content: bytes) -> "list[NDArray[np.float32]]":
    """The float32 constants of a .tflite file, flat."""
    model = unpacked(content)
    found = (constant(model, tensor) for graph in model.subgraphs for tensor in graph.tensors)
    return [values for values in found if values is not None and values.dtype == np.float32]


def arithmetic_of(content: bytes) -> Arithmetic:
    """Count what computes in float; a cast of a constant is none: it is done once, when the file is loaded."""
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    names = operator_names(model)
    floats: Counter[str] = Counter()
    casts = layers = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = names[operator.opcodeIndex]
            source = graph.tensors[operator.inputs[0]]
            if name in _CASTS:
                data = model.buffers[source.buffer].data
                casts += data is None or not len(data)
                continue
            layers += name in LAYERS
            floats[name] += source.type == schema.TensorType.FLOAT32
    return Arithmetic(casts, sum(floats[name] for name in LAYERS), layers, +floats)
