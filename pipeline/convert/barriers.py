"""Keeps single layers in float in a .tflite file.

LiteRT's converter quantises any layer between a DEQUANTIZE and a QUANTIZE operator, also one that was left in float on
purpose. A subtraction before it, which is not quantised, hides the one from the other; once the file is made, it is
taken out again, and what remains computes what the PyTorch graph without it computes. It is the input that is taken
from a constant: a constant that is added to an input or multiplied with it, the converter moves into the layer.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from phonefit.pipeline.convert.graph import CONVOLUTIONS, LINEAR, attach
from phonefit.pipeline.convert.quantised_graph import NodeFilter
from phonefit.pipeline.convert.tflite_file import constant, operator_names, packed, unpacked
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_LAYERS = (*CONVOLUTIONS, LINEAR)
_MARK = np.float32(0.7310586)  # a constant that no network subtracts from


def float_boundaries(graph: "GraphModule", wanted: NodeFilter) -> int:
    """Tensors that pass between nodes that stay in float and nodes that do not: each takes a cast."""
    inside = {node for node in graph.graph.nodes if node.op == "call_function" and not wanted(node)}
    entering = {source for node in inside for source in node.all_input_nodes if source.op != "get_attr"} - inside
    leaving = {node for node in inside if any(user not in inside for user in node.users)}
    return len(entering) + len(leaving)


def insert_barriers(graph: "GraphModule", wanted: NodeFilter) -> int:
    """Take from `_MARK` what layers in float get from quantised ones, in place; returns the number of barriers."""
    barriers: dict[Node, Node] = {}
    for layer in list(graph.graph.nodes):
        if layer.target not in _LAYERS or wanted(layer) or not _comes_quantised(layer.args[0]):
            continue
        source = layer.args[0]
        if source not in barriers:
            with graph.graph.inserting_before(layer):
                # of the same rank, so that the converter brings it into channels-last with its neighbours
                mark = attach(graph, "", "barrier", torch.full((1,) * layer.meta["val"].dim(), float(_MARK)))
                barriers[source] = graph.graph.call_function(torch.ops.aten.sub.Tensor, (mark, source))
            barriers[source].meta = {"nn_module_stack": layer.meta["nn_module_stack"]}
        layer.replace_input_with(source, barriers[source])
    graph.recompile()
    return len(barriers)


def _comes_quantised(node: "Node") -> bool:
    """Whether a value was quantised last, not computed by a layer in float: nothing but moves and clamps since."""
    while node.op == "call_function" and node.target not in _LAYERS and node.all_input_nodes:
        if "dequantize" in str(node.target):
            return True
        node = node.all_input_nodes[0]
    return False


def without_barriers(content: bytes, barriers: int) -> bytes:
    """A .tflite file without the subtractions from `_MARK`: bytes in, bytes out.

    Raises:
        ConversionError: not all are found: the converter has moved some into a layer, which now computes wrong values.
    """
    removed = 0
    model = unpacked(content)
    names = operator_names(model)
    for graph in model.subgraphs:
        sources: dict[int, int] = {}  # output of a barrier -> its input
        kept = []
        for operator in graph.operators:
            values = (
                constant(model, graph.tensors[operator.inputs[0]]) if names[operator.opcodeIndex] == "SUB" else None
            )
            if values is not None and (values == _MARK).all():
                sources[int(operator.outputs[0])] = int(operator.inputs[1])
                removed += 1
            else:
                kept.append(operator)
        for operator in kept:
            operator.inputs = [sources.get(int(tensor), int(tensor)) for tensor in operator.inputs]
        graph.operators = kept
    if removed != barriers:
        raise ConversionError(
            f"float_layers: LiteRT's converter quantises {barriers - removed} of these layers all the same, because "
            "what is before and after is quantised; name the neighbours too"
        )
    return packed(model)
