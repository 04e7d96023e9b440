"""ONNX graphs that store weights smaller than they compute with them.

ONNX Runtime folds constants when it loads a file, casts and products too: weights that are stored in int8 or float16
become float32 once. With DequantizeLinear, which it does not fold, an int8 MobileNetV2 takes twice as long as a float
one, because each inference widens all weights again.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from phonefit.device_bench.runtimes.onnx import without_telemetry
from phonefit.models.quantisation import BLOCK, Quantisation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

_LAYERS = ("Conv", "Gemm", "MatMul")
_LEVELS = 127  # symmetric int8, without -128


def layer_nodes(model: "ModelProto", kept: Collection[str] = ()) -> "list[NodeProto]":
    """The convolutions and linear layers with constant weights, but those whose name is in `kept`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = (node for node in model.graph.node if node.op_type in _LAYERS and node.name not in kept)
    return [node for node in nodes if node.input[1] in constants]


def depthwise_nodes(model: "ModelProto") -> list[str]:
    """Names of the depthwise convolutions: one input channel a group, and more than one group."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in layer_nodes(model)
        if node.op_type == "Conv"
        and shapes[node.input[1]][1] == 1
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]


def with_int8_weights(model: "ModelProto", quantisation: Quantisation, kept: Collection[str]) -> None:
    """Store the weights of all layers but `kept` in int8, in place: one scale an output channel or a tensor."""
    for node in layer_nodes(model, kept):
        if _initializer(model, node.input[1]) is not None:  # else stored already: two layers share it
            _store(model, node.input[1], *_rounded(model, node, quantisation.granularity == "per_tensor"))


def with_half_weights(model: "ModelProto", kept: Collection[str]) -> None:
    """Store weights and biases of all layers but `kept` in float16, in place."""
    from onnx import numpy_helper

    for node in layer_nodes(model, kept):
        for name in node.input[1:3]:
            tensor = _initializer(model, name)
            if tensor is not None:  # else stored already
                _store(model, name, numpy_helper.to_array(tensor).astype(np.float16), None)


def with_int4_linear(model: "ModelProto", kept: Collection[str]) -> "ModelProto":
    """Linear layers but `kept` as MatMulNBits: symmetric int4 weights, one scale for `BLOCK` inputs of an output."""
    without_telemetry()
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _split_gemms(model, kept)
    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=[*kept], op_types_to_quantize=("MatMul",)
    )
    quantizer.process()
    result: ModelProto = quantizer.model.model
    return result


def _rounded(model: "ModelProto", node: "NodeProto", whole: bool) -> "tuple[NDArray[np.int8], NDArray[np.float32]]":
    """int8 weights of a layer and their scales, shaped to multiply."""
    from onnx import numpy_helper

    tensor = _initializer(model, node.input[1])
    assert tensor is not None  # a node of layer_nodes
    weights = numpy_helper.to_array(tensor)
    transposed = node.op_type == "MatMul" or not _attribute(node, "transB", int(node.op_type == "Conv"))
    outputs = weights.ndim - 1 if transposed else 0
    others = tuple(axis for axis in range(weights.ndim) if whole or axis != outputs)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.where(largest > 0, largest / _LEVELS, 1).astype(np.float32)
    return np.clip(np.rint(weights / scales), -_LEVELS, _LEVELS).astype(np.int8), scales


def _store(model: "ModelProto", name: str, values: "NDArray[np.generic]", scales: "NDArray[np.float32] | None") -> None:
    """Replace a float32 constant by a smaller one, widened by a Cast and multiplied by its scales."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    graph.initializer.remove(_initializer(model, name))
    stored, factor = f"{name}.stored", f"{name}.scale"
    graph.initializer.append(numpy_helper.from_array(values, stored))
    wide = name if scales is None else f"{name}.wide"
    nodes = [helper.make_node("Cast", [stored], [wide], name=wide, to=TensorProto.FLOAT)]
    if scales is not None:
        graph.initializer.append(numpy_helper.from_array(scales, factor))
        nodes.append(helper.make_node("Mul", [wide, factor], [name], name=f"{name}.product"))
    for node in reversed(nodes):  # before what uses them: nodes are in order of use
        graph.node.insert(0, node)


def _split_gemms(model: "ModelProto", kept: Collection[str]) -> None:
    """Gemm with constant weights as MatMul and Add, in place: MatMulNBits replaces products only."""
    from onnx import helper, numpy_helper

    graph = model.graph
    for node in [node for node in layer_nodes(model, kept) if node.op_type == "Gemm"]:
        if _attribute(node, "alpha", 1.0) != 1 or _attribute(node, "beta", 1.0) != 1 or _attribute(node, "transA", 0):
            continue
        tensor = _initializer(model, node.input[1])
        assert tensor is not None  # a node of layer_nodes
        weights = numpy_helper.to_array(tensor)
        right = np.ascontiguousarray(weights.T if _attribute(node, "transB", 0) else weights)
        product, name = f"{node.output[0]}.product", f"{node.input[1]}.right"
        graph.initializer.append(numpy_helper.from_array(right, name))
        parts = [helper.make_node("MatMul", [node.input[0], name], [product], name=f"{node.name}.product")]
        if len(node.input) > 2:
            parts.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}.bias"))
        else:
            parts[0].output[0] = node.output[0]
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for part in reversed(parts):
            graph.node.insert(place, part)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _initializer(model: "ModelProto", name: str) -> "TensorProto | None":
    return next((tensor for tensor in model.graph.initializer if tensor.name == name), None)


def _attribute(node: "NodeProto", name: str, default: float) -> float:
    return next(_values(node, name), default)


def _values(node: "NodeProto", name: str) -> Iterator[float]:
    for attribute in node.attribute:
        if attribute.name == name:
            yield attribute.f if attribute.type == attribute.FLOAT else attribute.i
