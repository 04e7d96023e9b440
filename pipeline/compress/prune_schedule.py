"""In which order channels go, how much of the way each step goes, and how the epochs are shared out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from phonefit.pipeline.compress.prune_criteria import Scores, group_importance
from phonefit.pipeline.compress.prune_graph import Group
from phonefit.pipeline.compress.prune_units import Part, Side, within_parts
from phonefit.pipeline.recipe_steps import PruneConfig


@dataclass(frozen=True)
class Ranked:
    """A group with its units in order.

    Attributes:
        root: name of the layer that stands for the group.
        units: channels of the root that go together, least important first.
        scores: importance in that order; 1 is the group's mean.
        parts: layers that have only some of the group's channels.
    """

    root: str
    units: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    parts: tuple[Part, ...] = ()

    @property
    def size(self) -> int:
        """Channels of the root."""
        return sum(map(len, self.units))


@dataclass(frozen=True)
class Block:
    """Channels of one group that go at once, so that a multiple of `round_to` stays."""

    root: str
    channels: tuple[int, ...]
    score: float


def ranked(groups: Sequence[Group], scores: Scores, left: dict[str, str], reason: str) -> list[Ranked]:
    """The groups with their units in order; a group that the criterion has no score for is added to `left`."""
    result = []
    for group in groups:
        importance = group_importance(group, scores)
        if importance is None:
            left[group.root] = reason
            continue
        order = torch.argsort(importance, stable=True)
        units = tuple(group.units[place] for place in order.tolist())
        result.append(Ranked(group.root, units, tuple(importance[order].tolist()), group.parts))
    return result


def blocks_in_order(
    groups: Sequence[Ranked], config: PruneConfig, sizes: Mapping[tuple[str, Side], int]
) -> list[Block]:
    """Every block that may go, the least important first; the blocks of one group come in their order.

    Args:
        sizes: (layer, side) -> its channels before the first step, of which at most `layer_limit` may go in all.
    """
    blocks = []
    for place, group in enumerate(groups):
        unit = len(group.units[0])
        together = config.round_to // math.gcd(config.round_to, unit)
        most = _most(sizes.get((group.root, "out"), group.size), group.size, config)
        limits = [
            (part.roots, _most(sizes.get((part.layer, part.side), len(part.roots)), len(part.roots), config))
            for part in group.parts
        ]
        units = within_parts(group.units, limits)
        scores = dict(zip(group.units, group.scores, strict=True))
        start, stop = 0, len(group.units) % together or together
        while stop * unit <= most and stop <= len(units) and stop < len(group.units):
            score = sum(scores[one] for one in units[start:stop]) / (stop - start)
            channels = tuple(channel for one in units[start:stop] for channel in one)
            blocks.append((score, place, start, Block(group.root, channels, score)))
            start, stop = stop, stop + together
    return [block for *_, block in sorted(blocks, key=lambda one: one[:3])]


def _most(original: int, size: int, config: PruneConfig) -> int:
    """How many of `size` channels may go, of a layer that began with `original`."""
    return int(original * config.layer_limit) - (original - size)


def within(blocks: Sequence[Block], channels: int) -> list[Block]:
    """The first blocks, of no more than so many channels; a block that is too large is skipped, and those behind it
    in its group.
    """
    taken, closed, remaining = [], set(), channels
    for block in blocks:
        if block.root in closed or len(block.channels) > remaining:
            closed.add(block.root)
            continue
        taken.append(block)
        remaining -= len(block.channels)
    return taken


def plan_of(blocks: Sequence[Block]) -> dict[str, list[int]]:
    """Which channels of which group go: root -> channels."""
    plan: dict[str, list[int]] = {}
    for block in blocks:
        plan[block.root] = sorted([*plan.get(block.root, []), *block.channels])
    return plan


def kept_after(step: int, config: PruneConfig, keep: float) -> float:
    """Share that is kept after step 1, 2, … of `config.steps`, of which the last keeps `keep`.

    Geometric: each step keeps the same share of what the one before left. Linear: each removes the same amount.
    """
    if config.growth == "geometric":
        return float(keep ** (step / config.steps))
    return 1 - (1 - keep) * step / config.steps


def epochs_of(step: int, config: PruneConfig) -> int:
    """Epochs of recovery after step 1, 2, …: an equal part of all, the last steps get what is left over."""
    whole, over = divmod(config.recover.epochs, config.steps)
    return whole + (step > config.steps - over)
