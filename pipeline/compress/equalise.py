"""Cross-layer equalisation: the ranges of weights become alike, the network computes the same.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section
4.1. What a channel's output is divided by, the next layer's weights are multiplied with. A layer with a BatchNorm is
scaled through that BatchNorm's own weight and bias, so no layer is folded and the checkpoint stays as it is built.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from phonefit.models.spec import Architecture
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.compress.layer_graph import (
    CLAMPS,
    RELU6,
    Layer,
    Walk,
    layers_of,
    norm_scale,
    only_user,
    trace,
)

_aten = torch.ops.aten
_POOLS = (_aten.max_pool2d.default, _aten.adaptive_avg_pool2d.default, _aten.avg_pool2d.default)
SWEEPS = 20
CONVERGED = 1e-3  # largest change of a scale in the last sweep
MARGIN = 1.1  # values on other pictures may exceed those on the calibration set by so much
BATCH = 32


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone uses what the first gives.

    Attributes:
        limit: upper limit of a clamp between the two, 6 of ReLU6; None where there is none.
    """

    first: Layer
    second: Layer
    limit: float | None


def equalise(network: nn.Module, architecture: Architecture, samples: Floats) -> list[str]:
    """Equalise pairs of layers of `network` in place; returns a note on what was done.

    ReLU6 lets no scale through where it clips. A channel that reaches 6 on the samples (with a margin of a tenth) is
    left as it is; the others are scaled only so far that they stay below 6, and compute what they computed.

    Args:
        samples: float32 [n, 3, height, width].

    Raises:
        ModelError: the network cannot be exported.
    """
    traced = trace(network, architecture)
    pairs = [pair for pair in _pairs(traced) if _can_be_scaled(network, pair)]
    peaks = _peaks(traced, [pair.first.result for pair in pairs if pair.limit is not None], samples)
    total = {pair.first.name: torch.ones(_folded(network, pair.first).shape[0]) for pair in pairs}
    with torch.no_grad():
        for _ in range(SWEEPS):
            change = 0.0
            for pair in pairs:
                scale = _scale(network, pair)
                if pair.limit is not None:
                    share = peaks[pair.first.result] * MARGIN / pair.limit  # of the limit that was used at the start
                    scale = torch.where(share < 1, torch.maximum(scale, share / total[pair.first.name]), 1.0)
                _divide_output(network, pair.first, scale)
                _multiply_input(network, pair.second, scale)
                total[pair.first.name] *= scale
                change = max(change, float((scale - 1).abs().max()))
            if change < CONVERGED:
                break
    note = f"equalised {len(pairs)} pairs of layers"
    clipped = sum(
        int((peaks[pair.first.result] * MARGIN >= pair.limit).sum()) for pair in pairs if pair.limit is not None
    )
    if clipped:
        channels = sum(len(scale) for scale in total.values())
        note += f"; {clipped:,} of {channels:,} channels stay as they are, because ReLU6 clips them"
    return [note]


def _pairs(traced: GraphModule) -> Iterator[Pair]:
    layers = {layer.node: layer for layer in layers_of(traced)}
    for first in layers.values():
        clamps = []
        node = only_user(first.result)
        while node is not None and node not in layers and _lets_scales_through(node):
            clamps += [node] if node.target in CLAMPS else []
            node = only_user(node)
        if node in layers and len(clamps) <= 1:
            limit = next((_limit(clamp) for clamp in clamps), None)
            yield Pair(first, layers[node], limit)


def _lets_scales_through(node: Node) -> bool:
    """Whether it holds that f(x / s) = f(x) / s for a positive s of each channel; of ReLU6, below 6."""
    if node.target is _aten.pad.default:
        return not any(node.args[3:])  # zeros
    if node.target is _aten.constant_pad_nd.default:
        return not any(node.args[2:])
    if node.target is _aten.hardtanh.default:
        return bool(len(node.args) == 3 and node.args[1] == 0)
    return node.target in (*CLAMPS, *_POOLS, _aten.flatten.using_ints)


def _limit(clamp: Node) -> float | None:
    if clamp.target is _aten.hardtanh.default:
        return float(clamp.args[2])  # type: ignore[arg-type]
    return 6.0 if clamp.target in RELU6 else None


def _can_be_scaled(network: nn.Module, pair: Pair) -> bool:
    """Whether the channels of the two fit, and the first has weights that scale its output."""
    first, second = (network.get_submodule(layer.name) for layer in (pair.first, pair.second))
    if not all(type(layer) in (nn.Conv2d, nn.Linear) for layer in (first, second)):
        return False
    if pair.first.norm_name is not None:
        norm = network.get_submodule(pair.first.norm_name)
        if norm.weight is None or norm.bias is None:
            return False
    inputs = second.in_channels if isinstance(second, nn.Conv2d) else second.in_features
    return bool(network.get_parameter(f"{pair.first.name}.weight").shape[0] == inputs)


def _peaks(traced: GraphModule, nodes: Sequence[Node], samples: Floats) -> dict[Node, Tensor]:
    """Highest value of each channel of these nodes: float32 [channels]."""
    wanted, peaks = set(nodes), dict[Node, Tensor]()
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            for node, value in Walk(traced).through(torch.from_numpy(samples[start : start + BATCH])):
                if node in wanted:
                    highest = value.transpose(0, 1).flatten(1).amax(1)
                    peaks[node] = torch.maximum(peaks.get(node, highest), highest)
    return peaks


def _scale(network: nn.Module, pair: Pair) -> Tensor:
    """sqrt(r1 / r2) with r1, r2 the ranges of a channel's weights in the first and in the second layer: both become
    sqrt(r1 * r2). 1 where a range is zero. float32 [channels].
    """
    first = _folded(network, pair.first).abs().flatten(1).amax(1)
    second = _by_input(network, pair.second, _folded(network, pair.second)).abs().amax((1, 3)).flatten()
    return torch.where((first > 0) & (second > 0), (first / second).sqrt(), 1.0)


def _folded(network: nn.Module, layer: Layer) -> Tensor:
    """The layer's weight with its BatchNorm."""
    weight, scale = network.get_parameter(f"{layer.name}.weight"), norm_scale(network, layer)
    return weight if scale is None else weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def _by_input(network: nn.Module, layer: Layer, weight: Tensor) -> Tensor:
    """A view of a weight as [groups, outputs of a group, inputs of a group, positions of the kernel]."""
    groups = getattr(network.get_submodule(layer.name), "groups", 1)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _divide_output(network: nn.Module, layer: Layer, scale: Tensor) -> None:
    own = dict(network.get_submodule(layer.norm_name or layer.name).named_parameters())
    own["weight"].div_(scale.reshape(-1, *[1] * (own["weight"].dim() - 1)))
    if "bias" in own:
        own["bias"].div_(scale)


def _multiply_input(network: nn.Module, layer: Layer, scale: Tensor) -> None:
    weight = network.get_parameter(f"{layer.name}.weight")
    grouped = _by_input(network, layer, weight)
    weight.copy_((grouped * scale.reshape(grouped.shape[0], 1, grouped.shape[2], 1)).reshape(weight.shape))
