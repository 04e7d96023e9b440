"""The graph that all converters start from: exported from PyTorch, batch normalisation folded, dropout gone."""

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from phonefit.models.errors import first_line
from phonefit.pipeline.errors import ConversionError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node
    from torch.fx.node import Argument

Outputs: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What a module that is exported gives."""

_aten = torch.ops.aten
BATCH_NORM = _aten.batch_norm.default
DROPOUTS = (_aten.dropout.default, _aten.dropout_.default, _aten.feature_dropout.default)
CONVOLUTIONS = (_aten.conv2d.default, _aten.conv2d.padding)
LINEAR = _aten.linear.default
WRAPPED = "channels_first"  # attribute of ChannelsLast that holds the person's network


class ChannelsLast(nn.Module):
    """Takes float32 [N, height, width, channels] and hands [N, channels, height, width] to `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.add_module(WRAPPED, network)

    def forward(self, picture: "Tensor") -> "Outputs":
        """Run the network on the picture."""
        outputs: Outputs = self.get_submodule(WRAPPED)(picture.permute(0, 3, 1, 2))
        return outputs


def exported_graph(network: nn.Module, example: "Tensor") -> "GraphModule":
    """Export with the static shape of `example`, then fold what is not needed at inference.

    Folding comes before quantising: a range observed between a convolution and its normalisation is a range of values
    that the shipped file never computes.

    Raises:
        ConversionError: the network cannot be exported with a static shape, or some batch normalisation is left.
    """
    try:
        graph = torch.export.export(network.eval(), (example,), strict=False).module(check_guards=False)
    except Exception as error:  # a person's own network may raise anything
        raise ConversionError(
            f"torch.export cannot trace the network with an input of {tuple(example.shape)}: {first_line(error)}; "
            "the shape is static, and what forward() does must not depend on the values of its input"
        ) from error
    _drop_dropouts(graph)
    fold_batch_norms(graph)
    return graph


def fold_batch_norms(graph: "GraphModule") -> None:
    """Fold each batch normalisation of an exported graph into the convolution or linear layer before it.

    With weight w, bias b, mean m and variance v it is y = x * s + (b - m * s), s = w / sqrt(v + eps). One that stands
    alone, as in pre-activation networks, becomes a layer that computes just this.

    Raises:
        ConversionError: one is left, for example because it is in training mode.
    """
    for node in list(graph.graph.nodes):
        if node.target is not BATCH_NORM or node.args[5]:  # args[5]: training
            continue
        weight, bias, mean, variance = (_constant(graph, argument) for argument in node.args[1:5])
        if mean is None or variance is None:
            continue
        scale = torch.rsqrt(variance + node.args[7]) * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        source = node.args[0]
        foldable = source.target in CONVOLUTIONS or (source.target is LINEAR and source.meta["val"].dim() == 2)
        if foldable and len(source.users) == 1:
            _fold_into(graph, source, scale, shift)
            node.replace_all_uses_with(source)
        else:
            _scale_and_shift(graph, node, scale, shift)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    check_batch_norms_gone(graph)


def check_batch_norms_gone(graph: "GraphModule") -> None:
    """Refuse a graph that still normalises: quantised, it would observe ranges that the shipped file never computes.

    Raises:
        ConversionError: naming the layers that are left.
    """
    left = [layer_of(node) or node.name for node in graph.graph.nodes if "batch_norm" in str(node.target)]
    if left:
        raise ConversionError(
            f"batch normalisation is left in the graph: {', '.join(left[:3])}{', …' if len(left) > 3 else ''}; it has "
            "no running statistics or is in training mode, so it cannot be folded. Use BatchNorm2d with "
            "track_running_stats=True"
        )


def layer_of(node: "Node") -> str:
    """Dotted name of the layer that a node of an exported graph comes from, as in the person's network; "" if none."""
    paths = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return paths[-1].removeprefix(WRAPPED).removeprefix(".") if paths else ""


def is_depthwise(graph: "GraphModule", node: "Node") -> bool:
    """Whether a node is a convolution with one input channel a group, and more than one group."""
    if node.target not in CONVOLUTIONS or len(node.args) < 7:
        return False
    weight = _constant(graph, node.args[1])
    groups = node.args[6]
    return weight is not None and weight.shape[1] == 1 and isinstance(groups, int) and groups > 1


def _drop_dropouts(graph: "GraphModule") -> None:
    for node in list(graph.graph.nodes):
        if node.target in DROPOUTS and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _constant(graph: "GraphModule", node: "Argument") -> "Tensor | None":
    if not isinstance(node, torch.fx.Node):
        return None
    owner, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(graph.get_submodule(owner), name)
    return value.detach()


def _fold_into(graph: "GraphModule", node: "Node", scale: "Tensor", shift: "Tensor") -> None:
    """Give a layer new constants beside the old ones; the old ones may serve another call of the same layer."""
    weight = _constant(graph, node.args[1])
    bias = _constant(graph, node.args[2] if len(node.args) > 2 else None)
    assert weight is not None  # of a convolution or linear layer
    values = {
        "weight": weight * scale.reshape(-1, *[1] * (weight.dim() - 1)),
        "bias": shift if bias is None else bias * scale + shift,
    }
    owner = _owner(node.args[1])
    with graph.graph.inserting_before(node):
        constants = [attach(graph, owner, name, value) for name, value in values.items()]
    node.args = (node.args[0], *constants, *node.args[3:])


def _scale_and_shift(graph: "GraphModule", node: "Node", scale: "Tensor", shift: "Tensor") -> None:
    """Replace a lone normalisation, of pictures by a 1x1 convolution of each channel: all runtimes have it in int8."""
    source, owner = node.args[0], _owner(node.args[3])
    channels, dimensions = len(scale), node.meta["val"].dim()
    shape = (1, -1, *[1] * (dimensions - 2))
    with graph.graph.inserting_before(node):
        if dimensions == 4:
            weight = attach(graph, owner, "weight", scale.reshape(-1, 1, 1, 1))
            bias = attach(graph, owner, "bias", shift)
            new = [graph.graph.call_function(CONVOLUTIONS[0], (source, weight, bias, [1, 1], [0, 0], [1, 1], channels))]
        else:
            factor = attach(graph, owner, "scale", scale.reshape(shape))
            offset = attach(graph, owner, "shift", shift.reshape(shape))
            product = graph.graph.call_function(_aten.mul.Tensor, (source, factor))
            new = [product, graph.graph.call_function(_aten.add.Tensor, (product, offset))]
    for item in new:
        item.meta = dict(node.meta)
    node.replace_all_uses_with(new[-1])


def _owner(constant: "Argument") -> str:
    """Name of the submodule that holds a constant."""
    assert isinstance(constant, torch.fx.Node)  # a get_attr node
    return str(constant.target).rpartition(".")[0]


def attach(graph: "GraphModule", owner: str, name: str, value: "Tensor") -> "Node":
    """Add a constant to a submodule under a name that is free there."""
    module = graph.get_submodule(owner)
    free = _free_name(name, module)
    module.register_parameter(free, nn.Parameter(value.detach().clone(), requires_grad=False))
    node = graph.graph.get_attr(f"{owner}.{free}" if owner else free)
    fake = next(item.meta["val"].fake_mode for item in graph.graph.nodes if item.op == "placeholder")
    node.meta["val"] = fake.from_tensor(value.detach(), static_shapes=True)
    return node


def _free_name(name: str, module: nn.Module) -> str:
    number = 0
    free = f"folded_{name}"
    while hasattr(module, free):
        number += 1
        free = f"folded_{name}_{number}"
    return free
