"""Structured pruning: whole channels are removed, so that the network stays an ordinary, smaller one."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.errors import ModelError
from phonefit.models.layers import in_layers
from phonefit.models.module_table import CLASSES
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import check_layers, check_runs, example_input
from phonefit.pipeline.compress.finish import cost_note, train_and_save
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.recipe_steps import PruneConfig

# What a dependency graph raises for a network that it cannot follow; AssertionError is its check of indices.
NOT_FOLLOWED = (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError, AssertionError, ModelError)


@dataclass(frozen=True)
class Group:
    """Channels of layers that depend on each other: the same channel must go in all of them.

    Attributes:
        root: name of the layer that stands for the group.
        size: its output channels.
        order: channels, least important first.
        scores: importance in that order; 1 is the group's mean.
    """

    root: str
    size: int
    order: tuple[int, ...]
    scores: tuple[float, ...]


def prune(
    checkpoint: Checkpoint,
    config: PruneConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Remove channels, then recover with the parent as teacher.

    Channels that depend on each other are found in the dependency graph (Fang et al. 2023, arXiv 2301.12900) and are
    one group, whose channels count once. A channel's importance is the mean squared norm of its weights over the
    group's layers, relative to the group's mean. `ratio` is the share of the channels of all groups that may go: those
    of the output, of `keep` and of layers that cannot be followed are not counted. Channels go in blocks that leave
    a multiple of `round_to`, the least important block of all groups first, as long as the sum stays within the ratio
    and no group loses more than `layer_limit`: what is removed is at most the ratio, mostly less than a block below.

    Raises:
        RecipeError: `keep` names a layer that does not exist.
        ModelError: the network cannot be traced.
        TrainingError: the recovery diverges.
    """
    original, architecture = checkpoint.load(), checkpoint.info.architecture
    check_layers(original, config.keep, "prune: keep")
    with deterministic(context, "prune"):
        network, notes = prune_channels(original, config, architecture)
        notes.insert(0, cost_note(original, network, architecture))
    return train_and_save(network, checkpoint, config, config.recover, context, destination, parent, notes, resume)


def prune_channels(original: nn.Module, config: PruneConfig, architecture: Architecture) -> tuple[nn.Module, list[str]]:
    """A pruned copy of `original`, and notes on what was removed and what was left alone."""
    left: dict[str, str] = {}
    while True:
        network = copy.deepcopy(original)
        graph = _graph(network, architecture)
        groups = list(_prunable(graph, network, config, left))
        plan = choose_blocks(groups, config)
        try:
            _remove(graph, network, plan)
            check_runs(network, architecture, "prune")
        except NOT_FOLLOWED:
            broken = [root for root in plan if not _works_alone(original, architecture, root, plan[root])]
            if not broken:
                raise
            left |= dict.fromkeys(broken, "the network no longer runs without its channels")
            continue
        total, removed = sum(group.size for group in groups), sum(map(len, plan.values()))
        notes = [f"removed {removed} of {total} channels in {len(plan)} of {len(groups)} groups"]
        if not plan:
            notes.append(f"nothing could go: no block that leaves a multiple of {config.round_to} is within the ratio")
        notes += [f"left alone: {root}: {reason}" for root, reason in left.items()]
        return network, notes


def choose_blocks(groups: list[Group], config: PruneConfig) -> dict[str, list[int]]:
    """Which channels of which group go: root -> channels."""
    blocks = []
    for place, group in enumerate(groups):
        most = int(group.size * config.layer_limit)
        start, stop = 0, group.size % config.round_to or config.round_to
        while stop <= most and stop < group.size:
            blocks.append((sum(group.scores[start:stop]) / (stop - start), place, start, stop))
            start, stop = stop, stop + config.round_to
    remaining = int(config.ratio * sum(group.size for group in groups))
    removed = dict.fromkeys(range(len(groups)), 0)
    for _, place, start, stop in sorted(blocks):
        if removed[place] == start and stop - start <= remaining:  # a later block needs those before it
            removed[place] = stop
            remaining -= stop - start
    return {groups[place].root: sorted(groups[place].order[:count]) for place, count in removed.items() if count}


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


def _prunable(graph: Any, network: nn.Module, config: PruneConfig, left: dict[str, str]) -> Iterator[Group]:
    """Groups that can be pruned; those that cannot are added to `left` with the reason."""
    import torch_pruning

    names = {module: name for name, module in network.named_modules()}
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="mean")
    for group in graph.get_all_groups():
        root = names[group[0].dep.target.module]
        if root in left or _stays(graph, group, names, config.keep):
            continue
        if obstacle := _obstacle(group, names):
            left[root] = obstacle
            continue
        scores = importance(group)
        size = graph.get_out_channels(group[0].dep.target.module)
        if scores is None or len(scores) != size:
            left[root] = "its channels do not map one to one to those that depend on them"
            continue
        scores = torch.nan_to_num(scores.double())
        order = torch.argsort(scores, stable=True)
        yield Group(root, size, tuple(order.tolist()), tuple(scores[order].tolist()))


def _stays(graph: Any, group: Any, names: dict[nn.Module, str], keep: tuple[str, ...]) -> bool:
    """Whether the group holds the network's output or a layer to keep."""
    for item in group:
        node = item.dep.target
        if not node.outputs and graph.is_out_channel_pruning_fn(item.dep.handler):
            return True
        if in_layers(names.get(node.module, ""), keep):
            return True
    return False


def _obstacle(group: Any, names: dict[nn.Module, str]) -> str | None:
    """Why the group cannot be pruned, or None."""
    for item in group:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            return "it depends on a parameter that is in no layer"
        kind = type(module)
        if kind.__module__.startswith("torch_pruning"):  # an operation without weights
            continue
        if kind.__name__ not in CLASSES:
            return f"it depends on {names.get(module)}, a {kind.__name__}, which a checkpoint cannot record"
        if isinstance(module, nn.Conv2d) and 1 < module.groups < module.out_channels:
            return f"it depends on {names.get(module)}, a convolution in {module.groups} groups"
        if isinstance(module, nn.BatchNorm2d) and not (module.affine and module.track_running_stats):
            return f"it depends on {names.get(module)}, a BatchNorm2d without weights or statistics"
    return None


def _remove(graph: Any, network: nn.Module, plan: dict[str, list[int]]) -> None:
    for root, channels in plan.items():
        layer = network.get_submodule(root)
        group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels)
        if not graph.check_pruning_group(group):
            raise ModelError(f"prune: {root} would lose all its channels")
        group.prune()


def _works_alone(original: nn.Module, architecture: Architecture, root: str, channels: list[int]) -> bool:
    network = copy.deepcopy(original)
    try:
        _remove(_graph(network, architecture), network, {root: channels})
        check_runs(network, architecture, "prune")
    except NOT_FOLLOWED:
        return False
    return True
