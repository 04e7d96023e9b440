"""The network as a graph of operators, with its layers: what equalisation and fake quantisation work on.

The graph shares its parameters with the network: what changes one changes the other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.graph import CodeGen

from phonefit.models.errors import ModelError, first_line
from phonefit.models.spec import Architecture

_aten = torch.ops.aten
CONVOLUTIONS = (_aten.conv2d.default, _aten.conv2d.padding)
LINEAR = _aten.linear.default
BATCH_NORM = _aten.batch_norm.default
RELU6 = (_aten.hardtanh.default, _aten.relu6.default)
CLAMPS = (_aten.relu.default, *RELU6)
ARITHMETIC = (_aten.add.Tensor, _aten.mul.Tensor)
POOLS = (_aten.adaptive_avg_pool2d.default, _aten.avg_pool2d.default, _aten.mean.dim)
# Operators that only move values, or pick some of them.
MOVES = (
    _aten.pad.default,
    _aten.constant_pad_nd.default,
    _aten.flatten.using_ints,
    _aten.view.default,
    _aten.reshape.default,
    _aten.permute.default,
    _aten.transpose.int,
    _aten.squeeze.dim,
    _aten.max_pool2d.default,
)
_DROPOUTS = (_aten.dropout.default, _aten.dropout_.default, _aten.feature_dropout.default)
LARGEST_BATCH = 4096  # what a recipe allows


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, with the batch normalisation that is folded into it at inference.

    Attributes:
        name: dotted name of the module that holds its weight.
        node: its node.
        norm_name: dotted name of the batch normalisation.
        norm: that one's node.
    """

    name: str
    node: Node
    norm_name: str | None
    norm: Node | None

    @property
    def result(self) -> Node:
        """The node of the layer's result, after its normalisation."""
        return self.norm or self.node


def trace(network: nn.Module, architecture: Architecture) -> GraphModule:
    """The operators of `network` in eval mode for any number of pictures; BatchNorm keeps its statistics, dropout goes.

    Raises:
        ModelError: the network cannot be exported.
    """
    example = torch.zeros(2, 3, architecture.height, architecture.width_pixels)
    batch = {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}
    try:
        program = torch.export.export(network.eval().cpu(), (example,), dynamic_shapes=(batch,), strict=False)
        exported = program.module(check_guards=False)
    except Exception as error:  # a person's own network may raise anything
        raise ModelError(
            f"quantise: torch.export cannot trace the network for any number of pictures ({first_line(error)}); "
            "remove qat, equalise, bias_correction and mixed for this model"
        ) from error
    graph = exported.graph
    for node in list(graph.nodes):
        if node.target in _DROPOUTS:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    _out_of_place(graph.nodes)
    output = next(node for node in graph.nodes if node.op == "output")
    (results,) = output.args
    flat: list[Node] = torch.utils._pytree.tree_leaves(results)
    if len(flat) != 1:
        raise ModelError(f"quantise: the network gives {len(flat)} outputs; these options need a network with one")
    output.args = (flat[0],)
    graph.set_codegen(CodeGen())
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return GraphModule({name: _constant(network, exported, name) for name in sorted(names)}, graph)


def layers_of(module: GraphModule) -> list[Layer]:
    """Layers with weights of their own, in the order in which they are computed; a layer that is called twice is not
    among them.
    """
    found: dict[str, list[Layer]] = {}
    for node in module.graph.nodes:
        if node.target not in (*CONVOLUTIONS, LINEAR) or node.args[1].op != "get_attr":
            continue
        name = str(node.args[1].target).rpartition(".")[0]
        user = only_user(node)
        foldable = user is not None and user.target is BATCH_NORM and not user.args[5]  # args[5]: training
        foldable = foldable and all(isinstance(argument, Node) for argument in user.args[3:5])  # statistics
        norm_name = str(user.args[3].target).rpartition(".")[0] if foldable else None
        found.setdefault(name, []).append(Layer(name, node, norm_name, user if foldable else None))
    return [calls[0] for calls in found.values() if len(calls) == 1]


def only_user(node: Node) -> Any:
    """The node that alone uses the result of `node`, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def norm_scale(network: nn.Module, layer: Layer) -> Tensor | None:
    """Factor that folding the normalisation puts on each output channel, float32 [outputs]; None without one."""
    if layer.norm_name is None:
        return None
    norm = network.get_submodule(layer.norm_name)
    assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    return scale if norm.weight is None else scale * norm.weight


class Walk(Interpreter):
    """Computes a graph node by node.

    Args:
        passed: nodes for which this holds hand their input on.
    """

    def __init__(self, module: GraphModule, passed: Callable[[Node], bool] = lambda node: False) -> None:
        super().__init__(module)
        self._passed = passed

    def run_node(self, n: Node) -> Any:
        """The value of one node, from those before it in `env`."""
        return self.env[n.all_input_nodes[0]] if self._passed(n) else super().run_node(n)

    def through(self, pictures: Tensor) -> Iterator[tuple[Node, Any]]:
        """Compute the nodes in order; yields each with its value, which stays in `env` as long as it is needed."""
        self.env = {}
        self.args_iter = iter((pictures,))
        root: Node = self.graph._root
        yield from self.onwards(root)

    def onwards(self, after: Node) -> Iterator[tuple[Node, Any]]:
        """Like `through`, from the node after `after` on, with what is in `env`."""
        node = after.next
        while node.op != "root":
            value = self.env[node] = self.run_node(node)
            yield node, value
            for dead in self.user_to_last_uses.get(node, []):
                self.env.pop(dead, None)
            node = node.next

    def finish(self, after: Node, values: Mapping[Node, Any]) -> Tensor:
        """The output, from the values that were known once the node `after` was computed."""
        self.env = dict(values)
        *_, (_, output) = self.onwards(after)
        assert isinstance(output, Tensor)
        return output


def _out_of_place(nodes: Any) -> None:
    """x.relu_() -> x.relu(), where nothing else sees the change: values must not change after they were computed."""
    for node in nodes:
        packet = getattr(node.target, "overloadpacket", None)
        name = "" if packet is None else packet.__name__
        if name.endswith("_") and not name.endswith("__") and only_user(node.args[0]) is node:
            plain = getattr(_aten, name[:-1], None)
            if plain is not None and node.target._overloadname in plain.overloads():
                node.target = getattr(plain, node.target._overloadname)


def _constant(network: nn.Module, exported: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of the network itself, or a constant that the export made."""
    owner, _, own = name.rpartition(".")
    for root in (network, exported):
        try:
            value = getattr(root.get_submodule(owner), own)
        except AttributeError:
            continue
        if isinstance(value, Tensor):
            return value
    raise ModelError(f"quantise: the traced network reads {name}, which is no tensor")
