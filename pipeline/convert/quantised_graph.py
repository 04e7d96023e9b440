"""What the PT2E quantisers of ExecuTorch and LiteRT share: exceptions by layer, ranges after a clamp, calibration.

PT2E: https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_ptq.html
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from phonefit.models.layers import stays_in_float, unknown_layers
from phonefit.models.quantisation import Quantisation
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.convert.graph import (
    CONVOLUTIONS,
    LINEAR,
    WRAPPED,
    check_batch_norms_gone,
    is_depthwise,
    layer_of,
)
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_CLAMPS = (
    _aten.relu.default,
    _aten.relu_.default,
    _aten.hardtanh.default,
    _aten.hardtanh_.default,
    _aten.relu6.default,
)
_ANNOTATION = "quantization_annotation"
NodeFilter = Callable[["Node"], bool]


def check_float_layers(quantisation: Quantisation, network: "nn.Module") -> None:
    """Refuse exceptions that name no layer.

    Raises:
        ConversionError: naming the layers that could be meant.
    """
    if problem := unknown_layers(network, quantisation.float_layers):
        raise ConversionError(f"float_layers: {problem}")


def quantised_nodes(float_layers: Collection[str]) -> NodeFilter:
    """A filter that holds for each node of an exported graph that is to be quantised."""

    def wanted(node: "Node") -> bool:
        stack = node.meta.get("nn_module_stack", {})
        own = {key: (str(name).removeprefix(f"{WRAPPED}."), kind) for key, (name, kind) in stack.items()}
        return not stays_in_float(own, float_layers)

    return wanted


def float_weights(graph: "GraphModule", wanted: NodeFilter) -> dict[str, "Tensor"]:
    """Layer name -> weights, of the convolutions and linear layers of an exported graph that stay in float."""
    weights = {}
    for node in graph.graph.nodes:
        if node.target in (*CONVOLUTIONS, LINEAR) and not wanted(node):
            owner, _, name = str(node.args[1].target).rpartition(".")
            weights[owner.removeprefix(f"{WRAPPED}.")] = getattr(graph.get_submodule(owner), name).detach()
    return weights


def depthwise_note(graph: "GraphModule", quantisation: Quantisation, reason: str) -> tuple[str, ...]:
    """A note that names the depthwise convolutions that dynamic quantisation leaves in float, if there are any."""
    if quantisation.calibrated:
        return ()
    wanted = quantised_nodes(quantisation.float_layers)
    layers = [layer_of(node) for node in graph.graph.nodes if is_depthwise(graph, node) and wanted(node)]
    if not layers:
        return ()
    named = f"{', '.join(layers[:3])}{', …' if len(layers) > 3 else ''}"
    return (f"{len(layers)} depthwise convolution(s) compute in float ({named}): {reason}",)


def annotate_clamped(graph: "GraphModule", config: Any, wanted: NodeFilter) -> None:
    """Let a convolution or linear layer and the clamp after it (ReLU, ReLU6) share one output range, that of the clamp.

    The quantisers do this for ReLU only. Without it the int8 scale after a ReLU6 layer covers the values before the
    clamp as well, often several times the 0..6 that is left.

    Args:
        config: the quantiser's QuantizationConfig: its specs of activations, weights and bias.
    """
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    for clamp in graph.graph.nodes:
        if clamp.op != "call_function" or clamp.target not in _CLAMPS:
            continue
        layer = clamp.args[0]
        if layer.target not in (*CONVOLUTIONS, LINEAR) or len(layer.users) > 1 or not (wanted(layer) and wanted(clamp)):
            continue
        specs = {layer.args[0]: config.input_activation, layer.args[1]: config.weight}
        if len(layer.args) > 2 and layer.args[2] is not None:
            specs[layer.args[2]] = config.bias
        layer.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        clamp.meta[_ANNOTATION] = QuantizationAnnotation(output_qspec=config.output_activation, _annotated=True)


def annotate_arithmetic(graph: "GraphModule", config: Any, wanted: NodeFilter) -> None:
    """Annotate additions and multiplications one by one, each together with the clamp after it, if there is one.

    LiteRT's quantiser looks at groups of connected additions and annotates the last of each group only: in a stage of
    residual blocks the others would stay in float between a dequantise and a quantise operator.
    """
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in (_aten.add.Tensor, _aten.mul.Tensor) or not wanted(node):
            continue
        specs = dict.fromkeys(node.all_input_nodes, config.input_activation)
        users = list(node.users)
        clamped = len(users) == 1 and users[0].target in _CLAMPS and wanted(users[0])
        output = None if clamped else config.output_activation
        node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=specs, output_qspec=output, _annotated=True)
        if clamped:
            users[0].meta[_ANNOTATION] = QuantizationAnnotation(output_qspec=config.output_activation, _annotated=True)


def annotate_padding(graph: "GraphModule", config: Any) -> None:
    """Quantise what is padded with zeros instead of what comes out of the padding before a convolution.

    Zero is exact in every affine int8 range, so nothing is lost, and both converters can then make the padding a part
    of the convolution. A quantise operator between the two would keep it as an operator of its own, in float or
    between transposes.
    """
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    for node in graph.graph.nodes:
        known = node.meta.get(_ANNOTATION)
        if node.target not in CONVOLUTIONS or known is None:
            continue
        padding = node.args[0]
        if not _is_zero_padding(padding) or padding not in known.input_qspec_map:
            continue
        del known.input_qspec_map[padding]
        source = padding.args[0]
        before = source.meta.get(_ANNOTATION)
        if before is None or before.output_qspec is None:  # the input picture itself
            specs = {source: config.input_activation}
            padding.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)


def unannotate_float(graph: "GraphModule", wanted: NodeFilter) -> None:
    """Take the annotations off operators that stay in float.

    XNNPACK's quantiser asks its filter about everything but joins (aten.cat) and what only moves values: of a detector
    it would round the boxes in pixels to 256 values, and the scores with them.
    """
    for node in graph.graph.nodes:
        if node.op == "call_function" and not wanted(node):
            node.meta.pop(_ANNOTATION, None)


def _is_zero_padding(node: "Node") -> bool:
    """aten.pad(x, amounts, mode="constant", value=None) or aten.constant_pad_nd(x, amounts, value=0), with zeros."""
    if node.target is _aten.pad.default:
        mode = node.args[2] if len(node.args) > 2 else "constant"
        return mode == "constant" and not any(node.args[3:])
    return node.target is _aten.constant_pad_nd.default and not any(node.args[2:])


def quantised_graph(
    graph: "GraphModule", quantizer: Any, samples: Floats, fold: bool, as_input: "ToInput"
) -> "GraphModule":
    """Observe the ranges on `samples` and put quantise and dequantise operators into the graph.

    Args:
        samples: float32 [n, 3, height, width].
        fold: whether weights become int8 constants now, or later in the converter.
        as_input: turns one sample, [1, 3, height, width], into the graph's input.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    check_batch_norms_gone(graph)
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for sample in np.split(samples, len(samples)):
            prepared(as_input(torch.from_numpy(sample)))
    quantised: GraphModule = convert_pt2e(prepared, fold_quantize=fold)
    return quantised


ToInput = Callable[["Tensor"], "Tensor"]
