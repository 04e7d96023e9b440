"""Checkpoint -> .onnx for ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import IN_FLOAT, in_layers
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import exported_graph
from phonefit.pipeline.convert.onnx_integers import with_dynamic_integers, with_static_integers
from phonefit.pipeline.convert.onnx_weights import (
    depthwise_nodes,
    layer_nodes,
    with_half_weights,
    with_int4_linear,
    with_int8_weights,
)
from phonefit.pipeline.convert.quantised_graph import check_float_layers, depthwise_note
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "input", "output"


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.onnx` and its description: batch 1, input float32 NCHW, outputs float32.

    A file of int8_static holds QuantizeLinear and DequantizeLinear pairs (QDQ), which ONNX Runtime fuses into integer
    kernels when it loads the file. Files of all schemes take and give float32.

    Raises:
        ConversionError: the network cannot be exported, or float_layers names no layer of it.
    """
    torch.set_num_threads(context.threads)
    network = context.task.exported(checkpoint.load(), checkpoint.info.preprocess)
    example = torch.zeros(input_shape(checkpoint))
    graph = exported_graph(network, example)
    program_of_graph = torch.export.export(graph, (example,), strict=False)
    count = len(program_of_graph.graph_signature.user_outputs)
    program = torch.onnx.export(
        program_of_graph,
        dynamo=True,
        external_data=False,
        input_names=[INPUT],
        output_names=[OUTPUT] if count == 1 else [f"{OUTPUT}_{place}" for place in range(count)],
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export gave no model")
    model: ModelProto = program.model_proto
    quantisation = checkpoint.info.quantisation
    notes: tuple[str, ...] = ()
    if quantisation is not None:
        check_float_layers(quantisation, network)
        if quantisation.scheme == "int8_dynamic":
            notes = depthwise_note(graph, quantisation, "ONNX Runtime's integer kernel for it is slow")
        model = _quantised(model, quantisation, context)
    path = destination / f"{name}.onnx"
    _share_constants(model)
    path.write_bytes(_stripped(model).SerializeToString(deterministic=True))
    return describe(path, "onnx", checkpoint, layout="NCHW", notes=notes)


def _quantised(model: "ModelProto", quantisation: Quantisation, context: Context) -> "ModelProto":
    """The model with its quantisation; see `Quantisation` for what a scheme is."""
    kept = [*_nodes_of(model, quantisation.float_layers), *_in_float(model)]
    match quantisation.scheme:
        case "int8_static":
            samples = context.data.calibration(quantisation.calibration)
            return with_static_integers(model, quantisation, samples, INPUT, kept)
        case "int8_dynamic":
            depthwise = depthwise_nodes(model)
            others = [node.name for node in layer_nodes(model) if node.name not in depthwise]
            model = with_dynamic_integers(model, quantisation, [*kept, *depthwise])
            with_int8_weights(model, quantisation, [*kept, *others])
        case "int8_weights":
            with_int8_weights(model, quantisation, kept)
        case "int4_weights":
            model = with_int4_linear(model, kept)
            with_int8_weights(model, quantisation, kept)
        case "fp16":
            with_half_weights(model, kept)
    return model


def _nodes_of(model: "ModelProto", layers: tuple[str, ...]) -> list[str]:
    """Names of the nodes that use the weights of these layers: the exporter names an initializer as PyTorch does.

    Raises:
        ConversionError: a layer without weights of its own, which cannot be told apart in the file.
    """
    nodes = {
        layer: [node.name for node in model.graph.node if any(in_layers(name, (layer,)) for name in node.input)]
        for layer in layers
    }
    missing = [layer for layer, names in nodes.items() if not names]
    if missing:
        known = sorted({name.rpartition(".")[0] for node in model.graph.node for name in node.input if "." in name})
        raise ConversionError(
            f"float_layers names {', '.join(missing)}; an .onnx file can keep layers with weights in float: "
            f"{', '.join(known[:20])}{', …' if len(known) > 20 else ''}"
        )
    return [name for names in nodes.values() for name in names]


def _in_float(model: "ModelProto") -> list[str]:
    """Names of the nodes that come from modules of `IN_FLOAT`, as the exporter notes it in each node."""
    hierarchies = {
        node.name: entry.value
        for node in model.graph.node
        for entry in node.metadata_props
        if entry.key == "pkg.torch.onnx.class_hierarchy"
    }
    return [name for name, hierarchy in hierarchies.items() if any(f"'{kind}'" in hierarchy for kind in IN_FLOAT)]


def _share_constants(model: "ModelProto") -> None:
    """Keep one of equal constants: the quantiser writes a tensor of zero points for each weight and bias anew."""
    graph = model.graph
    kept: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed = {
        tensor.name: kept.setdefault((tensor.data_type, tuple(tensor.dims), tensor.raw_data), tensor.name)
        for tensor in graph.initializer
        if tensor.raw_data
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    remaining = [tensor for tensor in graph.initializer if renamed.get(tensor.name, tensor.name) == tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(remaining)


def _stripped(model: "ModelProto") -> "ModelProto":
    """Without what the runtime does not read: stack traces with paths of this machine, unused operator sets."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]  # shapes of intermediate tensors, which the runtime infers
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "phonefit"
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model
