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
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.barriers import float_boundaries, insert_barriers, without_barriers
from phonefit.pipeline.convert.describe import describe, input_shape
from phonefit.pipeline.convert.graph import ChannelsLast, exported_graph
from phonefit.pipeline.convert.observers import calibrated
from phonefit.pipeline.convert.quantised_graph import (
    NodeFilter,
    annotate_arithmetic,
    annotate_clamped,
    annotate_padding,
    check_float_layers,
    depthwise_note,
    float_weights,
    quantised_graph,
    quantised_nodes,
)
from phonefit.pipeline.convert.tflite_file import Arithmetic, arithmetic_of, compacted, float_constants, same_values
from phonefit.pipeline.convert.tflite_weights import with_stored_weights
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

_PAD = torch.ops.aten.constant_pad_nd.default


def convert(checkpoint: Checkpoint, context: Context, destination: Path, name: str) -> Artifact:
    """Write `destination/NAME.tflite` and its description: batch 1, input NHWC.

    The input is channels-last because that is how LiteRT computes and how a camera delivers: no transpose is left.
    A file of int8_static takes int8, and gives it where its last layers are quantised; scale and zero point are in the
    file and in the description. All others take and give float32.

    Raises:
        ConversionError: the network cannot be exported, float_layers names no layer of it, or layers compute in float
            that should not, or the other way round.
    """
    torch.set_num_threads(context.threads)
    network = context.task.exported(checkpoint.load(), checkpoint.info.preprocess)
    example = _channels_last(torch.zeros(input_shape(checkpoint)))
    graph = exported_graph(ChannelsLast(network), example)
    quantisation = checkpoint.info.quantisation
    notes: tuple[str, ...] = ()
    if quantisation is None:
        content = _converted(graph, example)
    else:
        check_float_layers(quantisation, network)
        in_float = float_weights(graph, quantised_nodes(quantisation.float_layers))
        if quantisation.calibrated:
            samples = context.data.calibration(quantisation.calibration)
            content, notes = _integers(graph, example, quantisation, samples)
        else:
            if quantisation.scheme in ("int8_dynamic", "int4_weights"):
                notes = depthwise_note(graph, quantisation, "faster than LiteRT's own kernels for it")
            content = with_stored_weights(_converted(graph, example), quantisation, in_float)
        _check_float(content, in_float)
    path = destination / f"{name}.tflite"
    path.write_bytes(compacted(content))
    return describe(path, "tflite", checkpoint, layout="NHWC", notes=notes)


def _integers(
    graph: "GraphModule", example: "Tensor", quantisation: Quantisation, samples: Floats
) -> tuple[bytes, tuple[str, ...]]:
    """A .tflite file that computes in int8, and notes on what of it does not.

    Raises:
        ConversionError: a convolution or linear layer computes in float that is no exception.
    """
    from litert_torch.quantize.quant_config import QuantConfig

    wanted = quantised_nodes(quantisation.float_layers)
    exceptions, crossings = len(float_weights(graph, wanted)), float_boundaries(graph, wanted)
    quantizer = _quantizer(quantisation)
    quantised = quantised_graph(graph, quantizer, samples, fold=False, as_input=_channels_last)
    barriers = insert_barriers(quantised, wanted)  # after the ranges were taken, which it would falsify
    content = _converted(quantised, example, quant_config=QuantConfig(pt2e_quantizer=quantizer))
    if barriers:
        content = without_barriers(content, barriers)
    return content, check_integers(arithmetic_of(content), exceptions, crossings)


def check_integers(found: Arithmetic, exceptions: int, crossings: int) -> tuple[str, ...]:
    """Hold what computes in float in an int8 file against what float_layers explains; returns notes on the rest.

    A graph that was quantised for another runtime converts without a word into a float file full of casts, many times
    slower than either.

    Args:
        exceptions: convolutions and linear layers that stay in float as asked.
        crossings: tensors on the boundary between them and the rest, each of which takes a cast.

    Raises:
        ConversionError: more layers than that compute in float.
    """
    if found.float_layers > exceptions:
        raise ConversionError(
            f"{found.float_layers} of the {found.layers} convolutions and linear layers of the int8 .tflite file "
            f"compute in float, between {found.casts} QUANTIZE and DEQUANTIZE operators; float_layers explains "
            f"{exceptions}. LiteRT's quantiser does not know what is around them: name them in float_layers, or "
            "replace the operators between them"
        )
    if found.casts <= crossings:
        return ()
    others = ", ".join(f"{count} x {name}" for name, count in sorted(found.float_operators.items()))
    return (
        f"{found.casts} QUANTIZE and DEQUANTIZE operators, of which float_layers explains {crossings}"
        + (f"; what computes in float: {others}" if others else ""),
    )


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
    """See that layers that should stay in float did: LiteRT's converter quantises what lies between quantised layers.

    Raises:
        ConversionError: it has done so with one of these layers.
    """
    constants = float_constants(content)
    lost = [name for name, weight in weights.items() if not any(same_values(values, weight) for values in constants)]
    if lost:
        raise ConversionError(
            f"float_layers: LiteRT's converter quantises {', '.join(lost)} all the same, because what is before and "
            "after is quantised; name the neighbours too"
        )


def _quantizer(quantisation: Quantisation) -> Any:
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config

    config = get_symmetric_quantization_config(
        is_per_channel=quantisation.granularity == "per_channel", is_dynamic=False
    )
    config = calibrated(config, quantisation.calibration)
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
