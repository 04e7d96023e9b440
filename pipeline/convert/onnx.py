"""Checkpoint -> .onnx for ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from phonefit.device_bench.runtimes.onnx import without_telemetry
from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import in_layers
from phonefit.models.quantisation import Quantisation
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import exported_graph
from phonefit.pipeline.convert.quantised_graph import check_float_layers
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "input", "output"


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.onnx` and its description: batch 1, input float32 NCHW, output float32 [1, outputs].

    An int8 file holds QuantizeLinear and DequantizeLinear pairs (QDQ), which ONNX Runtime fuses into integer kernels
    when it loads the file; it takes and gives float32.

    Raises:
        ConversionError: the network cannot be exported, or float_layers names no layer of it.
    """
    torch.set_num_threads(context.threads)
    network = checkpoint.load()
    example = torch.zeros(input_shape(checkpoint))
    graph = exported_graph(network, example)
    program = torch.onnx.export(
        torch.export.export(graph, (example,), strict=False),
        dynamo=True,
        external_data=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export gave no model")
    model: ModelProto = program.model_proto
    quantisation = checkpoint.info.quantisation
    if quantisation is not None:
        check_float_layers(quantisation, network)
        model = _quantised(model, quantisation, context.data.calibration(quantisation.calibration))
    path = destination / f"{name}.onnx"
    _share_constants(model)
    path.write_bytes(_stripped(model).SerializeToString(deterministic=True))
    return describe(path, "onnx", checkpoint, layout="NCHW")


def _quantised(model: "ModelProto", quantisation: Quantisation, samples: Floats) -> "ModelProto":
    """Static int8 quantisation, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.

    Weights are symmetric int8. Activations are uint8: with int8 ones, ONNX Runtime on x86 leaves many convolutions
    in float between casts; with uint8 it has integer kernels on x86 and on Arm.
    """
    without_telemetry()
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands the samples out one by one."""

        def __init__(self) -> None:
            self._samples: Iterator[Floats] = iter(np.split(samples, len(samples)))

        def get_next(self) -> dict[str, Floats] | None:
            sample = next(self._samples, None)
            return None if sample is None else {INPUT: sample}

    with TemporaryDirectory(prefix="phonefit-") as folder:
        exported, prepared, quantised = (Path(folder, f"{step}.onnx") for step in ("exported", "prepared", "quantised"))
        onnx.save(model, str(exported))
        # symbolic shapes are for dynamic ones; ours are static
        quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=quantisation.granularity == "per_channel",
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_nodes_of(onnx.load(str(prepared)), quantisation.float_layers),
            extra_options={"WeightSymmetric": True},
        )
        return onnx.load(str(quantised))


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
