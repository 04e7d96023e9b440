"""Cross-layer equalisation: the ranges of what shares an int8 scale become alike, the network computes the same.

What a channel's output is divided by, the next layer's weights are multiplied with. A layer with a BatchNorm is scaled
through that BatchNorm's own weight and bias, so no layer is folded and the checkpoint stays as it is built.

Where all weights of a layer share a scale, their ranges are made alike: Nagel et al. 2019, "Data-Free Quantization
Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1. With a scale for each output channel
the first layer's weights lose nothing, but its outputs share a scale: their ranges, on samples, take the place of those
weights', as in Xiao et al. 2022, "SmoothQuant", arXiv 2211.10438, section 4, with a migration strength of a half.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from phonefit.models.quantisation import Granularity, Quantisation
from phonefit.models.spec import Architecture
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.compress.fake_quantise import fake_quantised
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
JUDGED = 64  # pictures of the calibration set on which the ways are compared
WAYS: dict[str, Granularity] = {"by outputs": "per_channel", "by weights": "per_tensor"}
UNCHANGED = "as they were"
LEAST_SHARE = 2.0**-8  # of the widest channel's range: what hardly answers to the samples may do so elsewhere


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone uses what the first gives.

    Attributes:
        value: what the first gives after its clamp, if there is one: the values that are rounded.
        limit: upper limit of a clamp between the two, 6 of ReLU6; None where there is none.
    """

    first: Layer
    second: Layer
    value: Node
    limit: float | None


def equalise_for(
    network: nn.Module, architecture: Architecture, samples: Floats, quantisation: Quantisation
) -> list[str]:
    """Equalise `network` in place as `quantisation` can use it; returns notes on what was done.

    With a scale for each output channel of a weight, neither way of equalising is always the better: what the outputs
    win, the weights that read them may lose. The one with the least squared error of the outputs in int8, as simulated
    on the first of the samples, is taken, or none.

    Raises:
        ModelError: the network cannot be exported.
    """
    if quantisation.granularity != "per_channel":
        return equalise(network, architecture, samples)
    judged = samples[:JUDGED]
    pictures, plain = torch.from_numpy(judged), copy.deepcopy(network.state_dict())

    def error() -> float:
        simulated = fake_quantised(trace(network, architecture), quantisation, judged)
        with torch.no_grad():
            return float((simulated.module(pictures) - wanted).square().mean())

    with torch.no_grad():
        wanted = network.eval().cpu()(pictures)
    found, notes = {UNCHANGED: (error(), plain)}, dict[str, list[str]]()
    for name, granularity in WAYS.items():
        network.load_state_dict(plain)
        notes[name] = equalise(network, architecture, samples, granularity)
        found[name] = (error(), copy.deepcopy(network.state_dict()))
    best = min(found, key=lambda name: found[name][0])
    network.load_state_dict(found[best][1])
    variance = max(float((wanted - wanted.mean(0)).square().mean()), torch.finfo().tiny)
    errors = ", ".join(f"{name} {value / variance:.2g}" for name, (value, _) in found.items())
    return [*notes.get(best, ()), f"ranges {best} make the least error in int8, of the outputs' variance: {errors}"]


def equalise(
    network: nn.Module, architecture: Architecture, samples: Floats, granularity: Granularity = "per_tensor"
) -> list[str]:
    """Equalise pairs of layers of `network` in place; returns a note on what was done.

    ReLU6 lets no scale through where it clips. A channel that reaches 6 on the samples (with a margin of a tenth) is
    left as it is; the others are scaled only so far that they stay below 6, and compute what they computed.

    Args:
        samples: float32 [n, 3, height, width].
        granularity: what of a weight shares a scale.

    Raises:
        ModelError: the network cannot be exported.
    """
    by_outputs = granularity == "per_channel"
    traced = trace(network, architecture)
    pairs = [pair for pair in _pairs(traced) if _can_be_scaled(network, pair)]
    peaks = _peaks(traced, [pair.value for pair in pairs if by_outputs or pair.limit is not None], samples)
    total = {pair.first.name: torch.ones(_folded(network, pair.first).shape[0]) for pair in pairs}
    with torch.no_grad():
        for _ in range(SWEEPS):
            change = 0.0
            for pair in pairs:
                if by_outputs:
                    known = peaks[pair.value]
                    known = known.clamp(min=float(known.amax()) * LEAST_SHARE)
                    scale = _scale_by_outputs(network, pair, known / total[pair.first.name])
                else:
                    scale = _scale(network, pair)
                if pair.limit is not None:
                    share = peaks[pair.value] * MARGIN / pair.limit  # of the limit that was used at the start
                    scale = torch.where(share < 1, torch.maximum(scale, share / total[pair.first.name]), 1.0)
                _divide_output(network, pair.first, scale)
                _multiply_input(network, pair.second, scale)
                total[pair.first.name] *= scale
                change = max(change, float((scale - 1).abs().max()))
            if change < CONVERGED:
                break
    note = f"equalised {len(pairs)} pairs of layers"
    clipped = sum(int((peaks[pair.value] * MARGIN >= pair.limit).sum()) for pair in pairs if pair.limit is not None)
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
            user = only_user(first.result)
            yield Pair(first, layers[node], user if user in clamps else first.result, limit)


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
    """Largest magnitude in each channel of these nodes: float32 [channels]."""
    wanted, peaks = set(nodes), dict[Node, Tensor]()
    if not wanted:
        return peaks
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            for node, value in Walk(traced).through(torch.from_numpy(samples[start : start + BATCH])):
                if node in wanted:
                    highest = value.abs().transpose(0, 1).flatten(1).amax(1)
                    peaks[node] = torch.maximum(peaks.get(node, highest), highest)
    return peaks


def _scale(network: nn.Module, pair: Pair) -> Tensor:
    """sqrt(r1 / r2) with r1, r2 the ranges of a channel's weights in the first and in the second layer: both become
    sqrt(r1 * r2). 1 where a range is zero. float32 [channels].
    """
    first = _folded(network, pair.first).abs().flatten(1).amax(1)
    second = _by_input(network, pair.second, _folded(network, pair.second)).abs().amax((1, 3)).flatten()
    return torch.where((first > 0) & (second > 0), (first / second).sqrt(), 1.0)


def _scale_by_outputs(network: nn.Module, pair: Pair, peaks: Tensor) -> Tensor:
    """sqrt(a / r) with a the range of a channel's output and r that of the weights that read it, in units of the
    largest weight of each output channel, which has a scale of its own. float32 [channels].

    The factor that all channels share is free without a clamp. It leaves the median ranges of weights in both
    layers alike, as runtimes know a least scale of weights.
    """
    highest = peaks.amax() if pair.limit is None else torch.tensor(pair.limit)
    if not highest > 0:
        return torch.ones_like(peaks)
    outputs = peaks / highest
    first, second = _folded(network, pair.first), _folded(network, pair.second)
    rows = _rows(second)
    relative = second / rows.clamp(min=torch.finfo().tiny).reshape(-1, *[1] * (second.dim() - 1))
    inputs = _by_input(network, pair.second, relative).abs().amax((1, 3)).flatten()
    scale = torch.where(inputs > 0, (outputs / inputs).sqrt(), 1.0)
    if pair.limit is not None:
        return scale
    grouped = _by_input(network, pair.second, second)
    scaled = (grouped * scale.reshape(grouped.shape[0], 1, grouped.shape[2], 1)).reshape(second.shape)
    medians = [ranges[ranges > 0].median() for ranges in (_rows(first) / scale, _rows(scaled)) if (ranges > 0).any()]
    return scale * (medians[0] / medians[1]).sqrt() if len(medians) == 2 else scale


def _rows(weight: Tensor) -> Tensor:
    """Largest magnitude of the weights of each output channel: float32 [outputs]."""
    return weight.abs().flatten(1).amax(1)


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
