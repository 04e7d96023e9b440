"""Fake quantisation: a network that computes in float what its int8 file will compute in integers.

Weights are symmetric int8, activations affine int8 with one range a tensor, and values are rounded where the
converters round them (Jacob et al. 2018, arXiv 1712.05877): after folding BatchNorm, after ReLU and ReLU6, around
additions, before padding. Rounding passes gradients through (Bengio et al. 2013, arXiv 1308.3432) by torch's own fake
quantisation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from phonefit.models.layers import stays_in_float
from phonefit.models.quantisation import Quantisation
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.compress.layer_graph import (
    ARITHMETIC,
    CLAMPS,
    MOVES,
    POOLS,
    Layer,
    Walk,
    layers_of,
    only_user,
)

LEAST_SCALE = 2.0**-12
"""The converters' observers give no scale below it: https://docs.pytorch.org/executorch/stable/backends-xnnpack.html"""
RANGE_MOMENTUM = 0.01  # of the running ranges while training, as Jacob et al. 2018 use a slow average
BATCH = 32
_CAT = torch.ops.aten.cat.default
WEIGHTS, ACTIVATIONS = "weight_grids", "activation_ranges"  # submodules of a fake-quantised graph
Wanted = Callable[[Node], bool]  # whether a node is to be int8


class WeightGrid(nn.Module):
    """Rounds a weight to int8: symmetric, the largest magnitude of each output channel, or of all, becomes 127."""

    def __init__(self, per_channel: bool) -> None:
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: Tensor) -> Tensor:
        """float32 [outputs, …] -> the same, on the grid."""
        magnitudes = weight.detach().abs()
        if self.per_channel:
            scale = (magnitudes.flatten(1).amax(1) / 127).clamp(min=LEAST_SCALE)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
        scale = (magnitudes.amax() / 127).clamp(min=LEAST_SCALE)
        return torch.fake_quantize_per_tensor_affine(
            weight, scale, torch.zeros_like(scale, dtype=torch.int32), -127, 127
        )


class ActivationRange(nn.Module):
    """Rounds activations to int8 over a range; in training mode the range follows what comes in."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, values: Tensor) -> Tensor:
        """float32, any shape -> the same, on the grid."""
        if self.training:
            low, high = values.detach().aminmax()
            self.low.lerp_(low, RANGE_MOMENTUM)
            self.high.lerp_(high, RANGE_MOMENTUM)
        return on_grid(values, self.low, self.high)


def on_grid(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values rounded to 256 steps from `low` to `high`, stretched so that 0 is one of them."""
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / 255).clamp(min=LEAST_SCALE)
    zero = (-128 - (low / scale).round()).clamp(-128, 127).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, -128, 127)


def folded_weight(weight: Tensor, norm_weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    """The weight of a layer with the BatchNorm after it: w * s, s = gamma / sqrt(variance + eps)."""
    return weight * _scale(norm_weight, variance, eps).reshape(-1, *[1] * (weight.dim() - 1))


def folded_bias(
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    """The bias of a layer with the BatchNorm after it: beta + (b - mean) * s."""
    shifted = (-mean if bias is None else bias - mean) * _scale(norm_weight, variance, eps)
    return shifted if norm_bias is None else shifted + norm_bias


def _scale(norm_weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if norm_weight is None else scale * norm_weight


@dataclass(frozen=True)
class FakeQuantised:
    """A fake-quantised network.

    Attributes:
        module: float32 [N, 3, height, width] -> float32 [N, outputs]; shares its parameters with the network.
        layers: the layers in int8, BatchNorm folded, in the order in which they are computed.
        quantisers: name of each such layer -> the nodes that round its weight, its input and its output.
        rounding: all nodes that round.
    """

    module: GraphModule
    layers: tuple[Layer, ...]
    quantisers: Mapping[str, frozenset[Node]]
    rounding: frozenset[Node]

    def walk(self, active: frozenset[Node]) -> Walk:
        """Computes the network with these of the rounding nodes at work."""
        passed = self.rounding - active
        return Walk(self.module, passed.__contains__)


def fake_quantised(traced: GraphModule, quantisation: Quantisation, samples: Floats) -> FakeQuantised:
    """`traced` with rounding as `quantisation` asks for it, in eval mode; `traced` stays as it is.

    Args:
        samples: float32 [n, 3, height, width] that set the ranges of the activations: the lowest and highest values.
    """
    graph = Graph()
    output = graph.graph_copy(traced.graph, {})
    graph.output(output)
    module = GraphModule(traced, graph)
    folded = tuple(_fold(graph, layer) for layer in layers_of(module))

    def wanted(node: Node) -> bool:
        return not stays_in_float(node.meta.get("nn_module_stack", {}), quantisation.float_layers)

    layers = tuple(layer for layer in folded if wanted(layer.node))
    weights = _round_weights(module, layers, quantisation.granularity == "per_channel")
    activations = _round_activations(module, {layer.node for layer in layers}, wanted)
    graph.lint()
    module.recompile()
    quantisers = {}
    for layer in layers:
        around = (
            weights[layer.node],
            _source(layer.node.all_input_nodes[0]),
            activations[_clamped(layer.node, wanted)],
        )
        quantisers[layer.name] = frozenset(node for node in around if _rounds(node))
    result = FakeQuantised(module.eval(), layers, quantisers, frozenset(node for node in graph.nodes if _rounds(node)))
    _calibrate(result, samples)
    return result


def _fold(graph: Graph, layer: Layer) -> Layer:
    """Put the folding of a layer's BatchNorm into the graph, where it is computed anew from the parameters."""
    norm, node = layer.norm, layer.node
    if norm is None:
        return layer
    _, norm_weight, norm_bias, mean, variance, _, _, eps, *_ = norm.args
    bias = node.args[2] if len(node.args) > 2 else None
    with graph.inserting_before(node):
        # BatchNorm's constants may stand after the layer: they are read anew here
        read = [
            graph.get_attr(str(constant.target)) if isinstance(constant, Node) else None
            for constant in (norm_weight, norm_bias, mean, variance)
        ]
        weight = graph.call_function(folded_weight, (node.args[1], read[0], read[3], eps))
        shift = graph.call_function(folded_bias, (bias, read[0], read[1], read[2], read[3], eps))
    node.args = (node.args[0], weight, shift, *node.args[3:])
    norm.replace_all_uses_with(node)
    graph.erase_node(norm)
    return Layer(layer.name, node, layer.norm_name, None)


def _round_weights(module: GraphModule, layers: tuple[Layer, ...], per_channel: bool) -> dict[Node, Node]:
    """Round each layer's weight; returns layer's node -> the node that rounds."""
    rounding = {}
    for index, layer in enumerate(layers):
        name = f"{WEIGHTS}.{index}"
        module.add_submodule(name, WeightGrid(per_channel))
        with module.graph.inserting_before(layer.node):
            rounding[layer.node] = module.graph.call_module(name, (layer.node.args[1],))
        layer.node.update_arg(1, rounding[layer.node])
    return rounding


def _round_activations(module: GraphModule, layers: set[Node], wanted: Wanted) -> dict[Node, Node]:
    """Round the values that go into int8 operators and that come out of them; returns value -> the node that rounds."""
    graph = module.graph
    values: dict[Node, None] = {}  # in the order in which they are found
    pools: dict[Node, Node] = {}  # a pool's values stay on the grid of what it pools
    for node in graph.nodes:
        if node in layers:
            inputs, results = [node.args[0]], [_clamped(node, wanted)]
        elif node.target in (*ARITHMETIC, _CAT) and wanted(node):
            inputs, results = node.all_input_nodes, [_clamped(node, wanted)]
        elif node.target in POOLS and wanted(node):
            source = _source(node.args[0])
            inputs, results = [node.args[0]], []
            pools[node] = source
        else:
            continue
        for value in (*map(_source, inputs), *results):
            if value.op != "get_attr" and value not in pools:
                values[value] = None
    rounding = {}
    for index, value in enumerate(values):
        name = f"{ACTIVATIONS}.{index}"
        module.add_submodule(name, ActivationRange())
        with graph.inserting_after(value):
            rounding[value] = _insert(value, graph.call_module(name, (value,)))
    for pool, source in pools.items():
        owner = rounding.get(pools.get(source, source))
        if owner is not None:
            with graph.inserting_before(pool):
                limits = [graph.get_attr(f"{owner.target}.{limit}") for limit in ("low", "high")]
            with graph.inserting_after(pool):
                rounding[pool] = _insert(pool, graph.call_function(on_grid, (pool, *limits)))
    return rounding


def _insert(value: Node, rounded: Node) -> Node:
    value.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded)
    return rounded


def _rounds(node: Node) -> bool:
    return node.target is on_grid or (
        node.op == "call_module" and str(node.target).partition(".")[0] in (WEIGHTS, ACTIVATIONS)
    )


def _source(value: Node) -> Node:
    """The value from which `value` is taken by moving alone."""
    while value.target in MOVES:
        value = value.args[0]  # type: ignore[assignment]
    return value


def _clamped(node: Node, wanted: Wanted) -> Node:
    """The clamp after `node` that shares its range, or `node` itself."""
    user = only_user(node)
    return user if user is not None and user.target in CLAMPS and wanted(user) else node


def _calibrate(network: FakeQuantised, samples: Floats) -> None:
    """Set the ranges to the lowest and highest values of the float network."""
    limits: dict[str, tuple[Tensor, Tensor]] = {}
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            pictures = torch.from_numpy(samples[start : start + BATCH])
            for node, value in network.walk(frozenset()).through(pictures):
                if node.op == "call_module" and str(node.target).startswith(f"{ACTIVATIONS}."):
                    low, high = value.aminmax()
                    known = limits.get(str(node.target), (low, high))
                    limits[str(node.target)] = torch.minimum(known[0], low), torch.maximum(known[1], high)
        for name, (low, high) in limits.items():
            network.module.get_buffer(f"{name}.low").copy_(low)
            network.module.get_buffer(f"{name}.high").copy_(high)
