"""Checkpoint -> .tflite for LiteRT: channels-last throughout, integers throughout where quantised."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import ChannelsLast, exported_graph
from phonefit.pipeline.convert.quantised_graph import (
    NodeFilter,
    annotate_arithmetic,
    annotate_clamped,
    annotate_padding,
    check_float_layers,
    float_weights,
    quantised_graph,
    quantised_nodes,
)
from phonefit.pipeline.convert.tflite_file import compacted, float_constants
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

_PAD = torch.ops.aten.constant_pad_nd.default


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.tflite` and its description: batch 1, input NHWC, output [1, outputs].

    The input is channels-last because that is how LiteRT computes and how a camera delivers: no transpose is left.
    An int8 file takes and gives int8; scale and zero point are in the file and in the description.

    Raises:
        ConversionError: the network cannot be exported, or float_layers names no layer of it or one that LiteRT's
            converter quantises all the same.
    """
    from litert_torch.quantize.quant_config import QuantConfig

    torch.set_num_threads(context.threads)
    network = checkpoint.load()
    example = _channels_last(torch.zeros(input_shape(checkpoint)))
    graph = exported_graph(ChannelsLast(network), example)
    quantisation = checkpoint.info.quantisation
    if quantisation is None:
        content = _converted(graph, example)
    else:
        check_float_layers(quantisation, network)
        quantizer = _quantizer(quantisation)
        in_float = float_weights(graph, quantised_nodes(quantisation.float_layers))
        samples = context.data.calibration(quantisation.calibration)
        graph = quantised_graph(graph, quantizer, samples, fold=False, as_input=_channels_last)
        content = _converted(graph, example, quant_config=QuantConfig(pt2e_quantizer=quantizer))
        _check_float(content, in_float)
    path = destination / f"{name}.tflite"
    path.write_bytes(compacted(content))
    return describe(path, "tflite", checkpoint, layout="NHWC")


def _channels_last(sample: "Tensor") -> "Tensor":
    return sample.permute(0, 2, 3, 1).contiguous()


def _converted(graph: "GraphModule", example: "Tensor", **options: Any) -> bytes:
    import litert_torch

    with _padding_in_channels_last():
        content: bytes = litert_torch.convert(graph, (example,), **options).model_content()
    return content


@contextmanager
def _padding_in_channels_last() -> Iterator[None]:
    """Teach litert-torch to bring zero padding into channels-last, as it brings convolutions.

    Its table of operators lacks it, so each padding of an int8 model would stay an operator of its own between two
    transposes; with it, padding becomes a part of the convolution that follows.
    """
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass.layout_rewrite import rewriters

    def rewrite(node: Any) -> None:
        source, amounts, *rest = node.args
        width, height, channels, batch = np.array([*amounts, *[0] * (8 - len(amounts))]).reshape(4, 2).tolist()
        node.args = (source, [*channels, *width, *height, *batch], *rest)

    known = rewriters.get(_PAD)
    rewriters[_PAD] = known or rewrite
    try:
        yield
    finally:
        if known is None:
            del rewriters[_PAD]


def _check_float(content: bytes, weights: "Mapping[str, Tensor]") -> None:
    """LiteRT's converter quantises a float layer on its own when both its neighbours are quantised.

    Raises:
        ConversionError: it has done so with one of these layers.
    """
    constants = [np.sort(values) for values in float_constants(content)]
    lost = [
        name
        for name, weight in weights.items()
        if not any(
            len(values) == weight.numel() and np.allclose(values, np.sort(weight.numpy(), axis=None))
            for values in constants
        )
    ]
    if lost:
        raise ConversionError(
            f"float_layers: LiteRT's converter quantises {', '.join(lost)} all the same, because what is before and "
            "after is quantised. It can keep the first layers, the last layers and whole blocks in float: name the "
            "neighbours too"
        )


def _quantizer(quantisation: Quantisation) -> Any:
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config

    config = get_symmetric_quantization_config(
        is_per_channel=quantisation.granularity == "per_channel", is_dynamic=False
    )
    wanted = quantised_nodes(quantisation.float_layers)

    class IntegerQuantizer(PT2EQuantizer):  # type: ignore[misc]
        """LiteRT's quantiser, with int8 padding and additions, exceptions by layer, and ranges after ReLU6."""

        def annotate(self, model: "GraphModule") -> "GraphModule":
            annotate_clamped(model, config, wanted)
            annotate_arithmetic(model, config, wanted)
            annotated: GraphModule = super().annotate(model)
            annotate_padding(annotated, config)
            return annotated

        def _annotate_all_static_patterns(
            self, model: "GraphModule", quantization_config: Any, filter_fn: NodeFilter | None = None
        ) -> "GraphModule":
            def both(node: Any) -> bool:
                return wanted(node) and (filter_fn is None or filter_fn(node))

            annotated: GraphModule = super()._annotate_all_static_patterns(model, quantization_config, both)
            return annotated

    return IntegerQuantizer().set_global(config)
