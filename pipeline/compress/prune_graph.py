"""Which channels depend on each other, how they are removed, and whether the network then computes what it should."""

import copy
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phonefit.models.errors import ModelError
from phonefit.models.layers import IN_FLOAT, in_layers
from phonefit.models.module_table import CLASSES
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import check_runs, example_input
from phonefit.pipeline.compress.prune_units import (
    Part,
    Side,
    Unequal,
    hanging_together,
    head_shapes,
    heads,
    singles,
    within_parts,
)

# What a dependency graph raises for a network that it cannot follow; AssertionError is its check of indices.
NOT_FOLLOWED = (
    RuntimeError, ValueError, LookupError, ArithmeticError, AttributeError, TypeError, AssertionError, ModelError,
)  # fmt: skip
TOLERANCE = 1e-6
"""Largest difference between a pruned network and the same with zeros, relative to the largest output; in float64."""
NOT_THE_SAME = "without its channels the network would not run, or not compute the same as with zeros in their place"
NOT_ONE_TO_ONE = "its channels do not map one to one to those that depend on them"

Plan = Mapping[str, Sequence[int]]
"""Root of a group -> its channels that go."""


@dataclass(frozen=True)
class Member:
    """A layer's part in a group.

    Attributes:
        layer: its name.
        side: "in" where a layer only reads the channels; what filters or scales each channel is "out".
        channels: of the layer, on that side.
        roots: for each of them, the channel of the group's root that it follows.
        size: all channels of the layer, on that side.
    """

    layer: str
    side: Side
    size: int
    channels: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels of layers that depend on each other: the same channel must go in all of them.

    Attributes:
        root: name of the layer that stands for the group.
        size: its output channels.
        units: channels of the root that must go together: one, or the same place in each part of a grouped
            convolution, or an attention head. All units have the same number of channels.
    """

    root: str
    size: int
    members: tuple[Member, ...]
    units: tuple[tuple[int, ...], ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Layers that have only some of the group's channels, such as those before a concatenation."""
        whole = [one for one in self.members if len(set(one.channels)) == one.size]
        parts = (Part(one.layer, one.side, frozenset(one.roots)) for one in whole)
        return tuple(dict.fromkeys(part for part in parts if len(part.roots) < self.size))


@contextmanager
def _lenient() -> Iterator[None]:
    """Teach torch-pruning 1.6 to go on where it divides by a number of channels of 0, after several shuffles.

    Channels then seem to keep their order there; the trial of the group shows that they do not, and it is left alone.
    """
    from torch_pruning.dependency import index_mapping

    known = index_mapping.update_reshape_index_mapping

    def update(graph: Any, node: Any) -> None:
        with suppress(ZeroDivisionError):
            known(graph, node)

    index_mapping.update_reshape_index_mapping = update
    try:
        yield
    finally:
        index_mapping.update_reshape_index_mapping = known


def prunable_groups(
    network: nn.Module, architecture: Architecture, keep: Sequence[str]
) -> tuple[list[Group], dict[str, str]]:
    """Groups whose channels can go, and root -> reason for those that are left alone.

    Each group is tried: one unit, then half of them, are removed from a copy, which must compute what the network
    computes with zeros in their place. Where that fails and the network splits these channels into heads, whole heads
    are tried, then the same channels of each head.

    Raises:
        ModelError: the network cannot be traced.
    """
    left: dict[str, str] = {}
    shapes = head_shapes(network, example_input(architecture))
    units: dict[str, tuple[tuple[int, ...], ...]] = {}
    while True:
        found = find_groups(network, architecture, keep, left, units)
        groups = [group for group in found if len(group.units) > 1]
        left |= {one.root: "all its channels must go together" for one in found if len(one.units) == 1}
        if _bears_trials(network, groups, architecture):
            return groups, left
        broken = [one for one in groups if not _bears_trials(network, [one], architecture)]
        if not broken:
            raise ModelError(
                "prune: groups that can be pruned one by one cannot be pruned together; name some of them in `keep`: "
                + ", ".join(one.root for one in groups)
            )
        for group in broken:
            tried = [*heads(group.size, shapes)]
            place = tried.index(units[group.root]) + 1 if group.root in units else 0
            if place < len(tried):
                units[group.root] = tried[place]
            else:
                left[group.root] = NOT_THE_SAME


@_lenient()
def find_groups(
    network: nn.Module,
    architecture: Architecture,
    keep: Sequence[str] = (),
    left: dict[str, str] | None = None,
    units: Mapping[str, tuple[tuple[int, ...], ...]] | None = None,
) -> list[Group]:
    """Groups of channels by the dependency graph (Fang et al. 2023, arXiv 2301.12900), without those of the output.

    Args:
        keep: layers that stay as they are.
        left: root -> reason: these groups are left out; groups that cannot be pruned are added.
        units: root -> channels that must go together, where it is not each for itself.

    Raises:
        ModelError: the network cannot be traced.
    """
    left = {} if left is None else left
    graph = _graph(network, architecture)
    names = {module: name for name, module in network.named_modules()}
    groups = []
    for root, items in _items(graph, names, left):
        if root in left or _stays(graph, items, names, keep):
            continue
        if obstacle := _obstacle(items, names):
            left[root] = obstacle
            continue
        size = graph.get_out_channels(network.get_submodule(root))
        members = _members(graph, items, names, size)
        if members is None:
            left[root] = NOT_ONE_TO_ONE
            continue
        try:
            together = hanging_together(network, members, (units or {}).get(root, singles(size)))
        except Unequal as error:
            left[root] = str(error)
            continue
        groups.append(Group(root, size, members, together))
    return groups


@_lenient()
def without(network: nn.Module, plan: Plan, architecture: Architecture) -> nn.Module:
    """A copy of `network` without these channels.

    Raises:
        ModelError: a layer would lose all its channels, or the copy does not run.
    """
    pruned = copy.deepcopy(network)
    graph = _graph(pruned, architecture)
    for root, channels in plan.items():
        layer = pruned.get_submodule(root)
        group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(channels))
        if not graph.check_pruning_group(group):
            raise ModelError(f"prune: {root} would lose all its channels")
        group.prune()
    for module in pruned.modules():  # the graph says nothing about it, and a checkpoint records it
        if isinstance(module, nn.Conv2d) and module.in_channels != module.weight.shape[1] * module.groups:
            raise ModelError("prune: a convolution in groups would have groups of different sizes")
    check_runs(pruned, architecture, "prune")
    return pruned


def is_sound(network: nn.Module, groups: Sequence[Group], plan: Plan, architecture: Architecture) -> bool:
    """Whether the network without these channels runs, and computes the same as with zeros in their place."""
    try:
        pruned = without(network, plan, architecture)
    except NOT_FOLLOWED:
        return False
    return same_outputs(pruned, with_zeros(network, groups, plan), architecture)


def with_zeros(network: nn.Module, groups: Sequence[Group], plan: Plan) -> nn.Module:
    """A copy of `network` in which nothing makes or reads these channels: their weights are zero."""
    zeroed = copy.deepcopy(network)
    with torch.no_grad():
        for group in groups:
            gone = set(plan.get(group.root, ()))
            for member in group.members:
                layer = zeroed.get_submodule(member.layer)
                pairs = zip(member.channels, member.roots, strict=True)
                _fill_with_zeros(layer, member.side, [channel for channel, root in pairs if root in gone])
    return zeroed


def same_outputs(first: nn.Module, second: nn.Module, architecture: Architecture) -> bool:
    """Whether two networks give the same outputs for a picture of noise, up to rounding."""
    noise = torch.randn(example_input(architecture).shape, generator=torch.Generator().manual_seed(0))
    tolerance = TOLERANCE
    try:
        one, other = (_output(copy.deepcopy(network).double(), noise.double()) for network in (first, second))
    except RuntimeError:  # a network with tensors of its own, which stay in float32
        one, other = (_output(network, noise) for network in (first, second))
        tolerance *= 1e3
    return torch.allclose(one, other, rtol=0, atol=tolerance * float(other.abs().max()), equal_nan=True)


def _output(network: nn.Module, picture: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = network.eval()(picture)
    return output


def _fill_with_zeros(layer: nn.Module, side: Side, channels: list[int]) -> None:
    weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
    if not channels or not isinstance(weight, nn.Parameter) or isinstance(layer, nn.PReLU):
        return
    groups, transposed = getattr(layer, "groups", 1), isinstance(layer, nn.ConvTranspose2d)
    if side == "out" and bias is not None:
        bias[channels] = 0
    if groups == 1:
        axis = 0 if (side == "out") != transposed else 1
        weight.index_fill_(axis, torch.tensor(channels), 0)
    elif (side == "out") != transposed:  # rows of the weight are channels
        weight[channels] = 0
    else:  # columns are places in a group of channels
        rows = weight.shape[0] // groups
        for channel in channels:
            part, place = divmod(channel, weight.shape[1])
            weight[part * rows : (part + 1) * rows, place] = 0


def _bears_trials(network: nn.Module, groups: Sequence[Group], architecture: Architecture) -> bool:
    plans = ({group.root: _some(group, units) for group in groups} for units in (1, None))
    return all(is_sound(network, groups, plan, architecture) for plan in plans)


def _some(group: Group, number: int | None) -> list[int]:
    """Channels of so many units, or of half of them, drawn without any order, so that a wrong order shows."""
    drawn = random.Random(group.size).sample(group.units, len(group.units))
    few = within_parts(drawn, [(part.roots, len(part.roots) // 2) for part in group.parts])
    return sorted(channel for unit in few[: number or len(group.units) // 2] for channel in unit)


def _graph(network: nn.Module, architecture: Architecture) -> Any:
    import torch_pruning

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(
                network, example_inputs=example_input(architecture), verbose=False
            )
    except NOT_FOLLOWED as error:
        raise ModelError(
            f"prune: the network's dependency graph cannot be built ({type(error).__name__}: {error}); "
            "remove the prune step for this model"
        ) from error


def _items(graph: Any, names: dict[nn.Module, str], left: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Name of the root and items of each group; a group that the graph cannot follow is added to `left`."""
    visited = _decoded(graph, names)
    for module in list(graph.module2node):
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or module in visited:
            continue
        visited.add(module)
        pruner = graph.get_pruner_of_module(module)
        try:
            items = graph.get_pruning_group(module, pruner.prune_out_channels, range(pruner.get_out_channels(module)))
        except NOT_FOLLOWED as error:
            left[names[module]] = f"its dependencies cannot be followed ({type(error).__name__}: {error})"
            continue
        visited |= {item.dep.target.module for item in items if graph.is_out_channel_pruning_fn(item.dep.handler)}
        yield names[module], items


def _decoded(graph: Any, names: Mapping[nn.Module, str]) -> set[nn.Module]:
    """The layers of a network with a part of `IN_FLOAT` that give its output, with nothing but operators between.

    Their channels stay, and following them through the arithmetic of boxes would take minutes.
    """
    if not any(f"{type(one).__module__}.{type(one).__qualname__}" in IN_FLOAT for one in names):
        return set()
    found: set[nn.Module] = set()
    for module in list(graph.module2node):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            waiting, seen = [graph.module2node[module]], set()
            while waiting:
                node = waiting.pop()
                seen.add(node)
                if not node.outputs:
                    found.add(module)
                waiting += [
                    one
                    for one in node.outputs
                    if one not in seen and not isinstance(one.module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
                ]
    return found


def _stays(graph: Any, items: Any, names: dict[nn.Module, str], keep: Sequence[str]) -> bool:
    """Whether the group holds the network's output or a layer to keep."""
    for item in items:
        node = item.dep.target
        if not node.outputs and graph.is_out_channel_pruning_fn(item.dep.handler):
            return True
        if in_layers(names.get(node.module, ""), keep):
            return True
    return False


def _obstacle(items: Any, names: dict[nn.Module, str]) -> str | None:
    """Why the group cannot be pruned, or None."""
    for item in items:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            return "it depends on a parameter that is in no layer"
        kind = type(module)
        if kind.__module__.startswith("torch_pruning"):  # an operation without weights
            continue
        if kind.__name__ not in CLASSES:
            return f"it depends on {names.get(module)}, a {kind.__name__}, which a checkpoint cannot record"
        if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
            return f"it depends on {names.get(module)}, a transposed convolution in {module.groups} groups"
        norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        if norm and not (module.affine and module.track_running_stats):
            return f"it depends on {names.get(module)}, a {kind.__name__} without weights or statistics"
    return None


def _members(graph: Any, items: Any, names: dict[nn.Module, str], size: int) -> tuple[Member, ...] | None:
    """The group's layers; None where a channel of a layer follows no channel of the root."""
    members = []
    for item in items:
        module = item.dep.target.module
        if module not in names:
            continue
        out = graph.is_out_channel_pruning_fn(item.dep.handler)
        limit = (graph.get_out_channels if out else graph.get_in_channels)(module)
        channels, roots = tuple(item.idxs), tuple(item.root_idxs)
        if any(root is None or not 0 <= root < size for root in roots):
            return None
        if isinstance(module, nn.PReLU) and module.num_parameters == 1:
            continue
        if any(not 0 <= channel < limit for channel in channels):
            return None
        members.append(Member(names[module], "out" if out else "in", limit, channels, roots))
    return tuple(members)
