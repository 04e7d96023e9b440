"""Checkpoint -> .pte for ExecuTorch, with everything that XNNPACK takes delegated to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import LINEAR, Outputs, exported_graph
from phonefit.pipeline.convert.observers import calibrated
from phonefit.pipeline.convert.quantised_graph import (
    annotate_clamped,
    annotate_padding,
    check_float_layers,
    depthwise_note,
    quantised_graph,
    quantised_nodes,
    unannotate_float,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

_INT4 = {"weight_qmin": -8, "weight_qmax": 7}  # the values by which XNNPACK's partitioner knows 4-bit weights


class HalfPrecision(nn.Module):
    """Takes and gives float32 and computes in float16 between: `network` has float16 weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: "Tensor") -> "Outputs":
        """Run the network on the picture."""
        outputs: Outputs = self.network(picture.half())
        return tuple(output.float() for output in outputs) if isinstance(outputs, tuple) else outputs.float()


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.pte` and its description: batch 1, input float32 NCHW, outputs float32.

    A quantised file computes in int8 or float16 inside and takes and gives float32. What stays in float for want of an
    XNNPACK kernel is in the description's notes.

    Raises:
        ConversionError: the network cannot be exported, or float_layers names no layer of it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.set_num_threads(context.threads)
    network = context.task.exported(checkpoint.load(), checkpoint.info.preprocess)
    example = torch.zeros(input_shape(checkpoint))
    graph = exported_graph(network, example)
    shipped: nn.Module = graph
    quantisation = checkpoint.info.quantisation
    notes: tuple[str, ...] = ()
    if quantisation is not None:
        check_float_layers(quantisation, network)
        if quantisation.scheme == "fp16":
            shipped = HalfPrecision(graph.half())
        else:
            notes = depthwise_note(graph, quantisation, "XNNPACK has no kernel for it with ranges taken while running")
            shipped = _quantised(graph, quantisation, _samples(context, quantisation, example))
    program = torch.export.export(shipped, (example,), strict=False)
    path = destination / f"{name}.pte"
    with _half_weights(), path.open("wb") as stream:
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        edge.to_executorch().write_to_file(stream)
    return describe(path, "executorch", checkpoint, layout="NCHW", notes=notes)


def _samples(context: Context, quantisation: Quantisation, example: "Tensor") -> Floats:
    """What is run through the graph before it is converted: one blank picture where no ranges are taken."""
    return context.data.calibration(quantisation.calibration) if quantisation.calibrated else example.numpy()


def _quantised(graph: "GraphModule", quantisation: Quantisation, samples: Floats) -> "GraphModule":
    return quantised_graph(graph, _quantizer(quantisation), samples, fold=True, as_input=lambda sample: sample)


@contextmanager
def _half_weights() -> Iterator[None]:
    """Let float16 weights of convolutions stay float16 in the file.

    The serialiser widens them to float32, which XNNPACK takes too; it takes float16 as they are, at half the bytes.
    """
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor

    original = NodeVisitor.define_tensor

    def define_tensor(self: Any, tensor: Any, *rest: Any, **options: Any) -> None:
        value = tensor.meta.get("val")
        if value is not None and value.dtype == torch.float16:
            options["force_fp32"] = False
        original(self, tensor, *rest, **options)

    NodeVisitor.define_tensor = define_tensor
    try:
        yield
    finally:
        NodeVisitor.define_tensor = original


def _quantizer(quantisation: Quantisation) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    wanted = quantised_nodes(quantisation.float_layers)
    each = {"is_per_channel": quantisation.granularity != "per_tensor", "is_dynamic": not quantisation.calibrated}
    config = get_symmetric_quantization_config(**each)
    if not quantisation.calibrated:
        dynamic = XNNPACKQuantizer().set_global(config).set_filter_function(wanted)
        if quantisation.scheme == "int4_weights":
            dynamic.set_operator_type(LINEAR, get_symmetric_quantization_config(**each, **_INT4))
        return dynamic
    config = calibrated(config, quantisation.calibration)

    class ClampedQuantizer(XNNPACKQuantizer):  # type: ignore[misc]
        """XNNPACK's quantiser, with ranges after ReLU6, padding in convolutions, and float where it is asked."""

        # Batch norms in training are not in this graph, and to look for them takes seconds.
        SUPPORTED_PATTERNS = [each for each in XNNPACKQuantizer.SUPPORTED_PATTERNS if not each.is_qat]  # noqa: RUF012

        def annotate(self, model: "GraphModule") -> "GraphModule":
            annotate_clamped(model, config, wanted)
            annotated: GraphModule = super().annotate(model)
            unannotate_float(annotated, wanted)
            annotate_padding(annotated, config)
            return annotated

    return ClampedQuantizer().set_global(config).set_filter_function(wanted)
