"""Checkpoint -> .pte for ExecuTorch, with everything that XNNPACK takes delegated to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import exported_graph
from phonefit.pipeline.convert.quantised_graph import (
    annotate_clamped,
    annotate_padding,
    check_float_layers,
    quantised_graph,
    quantised_nodes,
)

if TYPE_CHECKING:
    from torch.fx import GraphModule


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.pte` and its description: batch 1, input float32 NCHW, output float32 [1, outputs].

    An int8 file computes in int8 inside and takes and gives float32: XNNPACK quantises the input itself.

    Raises:
        ConversionError: the network cannot be exported, or float_layers names no layer of it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.set_num_threads(context.threads)
    network = checkpoint.load()
    example = torch.zeros(input_shape(checkpoint))
    graph = exported_graph(network, example)
    quantisation = checkpoint.info.quantisation
    if quantisation is not None:
        check_float_layers(quantisation, network)
        samples = context.data.calibration(quantisation.calibration)
        graph = quantised_graph(graph, _quantizer(quantisation), samples, fold=True, as_input=lambda sample: sample)
    program = torch.export.export(graph, (example,), strict=False)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path = destination / f"{name}.pte"
    with path.open("wb") as stream:
        edge.to_executorch().write_to_file(stream)
    return describe(path, "executorch", checkpoint, layout="NCHW")


def _quantizer(quantisation: Quantisation) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )

    config = get_symmetric_quantization_config(is_per_channel=quantisation.granularity == "per_channel")
    wanted = quantised_nodes(quantisation.float_layers)

    class ClampedQuantizer(XNNPACKQuantizer):  # type: ignore[misc]
        """XNNPACK's quantiser, with ranges after ReLU6 and padding as a part of convolutions."""

        def annotate(self, model: "GraphModule") -> "GraphModule":
            annotate_clamped(model, config, wanted)
            annotated: GraphModule = super().annotate(model)
            annotate_padding(annotated, config)
            return annotated

    return ClampedQuantizer().set_global(config).set_filter_function(wanted)
