"""Channels that can only go together: of grouped convolutions, and of attention in heads."""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Units = tuple[tuple[int, ...], ...]
Side = Literal["out", "in"]


class Unequal(ValueError):
    """Channels hang together in sets that cannot be counted alike; the message says why."""


@dataclass(frozen=True)
class Part:
    """A layer that has only some of a group's channels.

    Attributes:
        roots: the channels of the group's root that are its own.
    """

    layer: str
    side: Side
    roots: frozenset[int]


class InGroup(Protocol):
    """A layer's part in a group of channels."""

    @property
    def layer(self) -> str:
        """Its name."""
        ...

    @property
    def side(self) -> str:
        """ "out" or "in"."""
        ...

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the layer, on that side."""
        ...

    @property
    def roots(self) -> tuple[int, ...]:
        """For each of them, the channel of the group's root that it follows."""
        ...


def channels_of(network: nn.Module) -> dict[tuple[str, Side], int]:
    """(layer, side) -> channels of each convolution and linear layer."""
    sizes: dict[tuple[str, Side], int] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            sizes |= {(name, "out"): layer.out_features, (name, "in"): layer.in_features}
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            sizes |= {(name, "out"): layer.out_channels, (name, "in"): layer.in_channels}
    return sizes


def singles(size: int) -> Units:
    """Each channel for itself."""
    return tuple((channel,) for channel in range(size))


def hanging_together(network: nn.Module, members: Sequence[InGroup], start: Units) -> Units:
    """The smallest sets of channels that contain the sets of `start` and that each grouped convolution can lose.

    A convolution in G groups keeps G groups of one size when each loses the channels at the same places.

    Raises:
        Unequal: with the reason, where the sets have different sizes.
    """
    parent = {channel: unit[0] for unit in start for channel in unit}

    def find(channel: int) -> int:
        while parent[channel] != channel:
            channel = parent[channel]
        return channel

    for member in members:
        layer = network.get_submodule(member.layer)
        if not isinstance(layer, nn.Conv2d) or not 1 < layer.groups < layer.out_channels:
            continue
        total = layer.out_channels if member.side == "out" else layer.in_channels
        if len(set(member.channels)) != total:
            raise Unequal(f"it makes only some channels of {member.layer}, a convolution in {layer.groups} groups")
        width = total // layer.groups
        first: dict[int, int] = {}
        for channel, root in zip(member.channels, member.roots, strict=True):
            parent[find(root)] = find(first.setdefault(channel % width, root))
    sets = defaultdict(list)
    for channel in sorted(parent):
        sets[find(channel)].append(channel)
    units = tuple(tuple(channels) for channels in sets.values())
    if len({len(unit) for unit in units}) > 1:
        raise Unequal("its channels hang together in sets of different sizes")
    return units


def within_parts(units: Sequence[tuple[int, ...]], limits: Sequence[tuple[Set[int], int]]) -> list[tuple[int, ...]]:
    """The units in their order, without those by which a part would lose more channels than its limit.

    Args:
        limits: the channels of each part, and how many of them may go.
    """
    remaining = [limit for _, limit in limits]
    taken = []
    for unit in units:
        lost = [sum(channel in roots for channel in unit) for roots, _ in limits]
        if all(few <= left for few, left in zip(lost, remaining, strict=True)):
            remaining = [left - few for few, left in zip(lost, remaining, strict=True)]
            taken.append(unit)
    return taken


def heads(size: int, shapes: Sequence[tuple[int, int]]) -> Iterator[Units]:
    """For each split of `size` channels into heads: whole heads, then the same place in each head."""
    for number, width in shapes:
        if number * width == size and number > 1 and width > 1:
            whole = tuple(tuple(range(head * width, (head + 1) * width)) for head in range(number))
            yield whole
            yield tuple(zip(*whole, strict=True))


def head_shapes(network: nn.Module, example: Tensor) -> list[tuple[int, int]]:
    """(heads, channels of a head) of each reshape in a forward pass that splits one axis into two."""
    found: dict[tuple[int, int], None] = {}

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") in ("reshape", "view", "unflatten") and isinstance(result, Tensor):
                before, after = tuple(args[0].shape), tuple(result.shape)
                for axis in range(len(before)):
                    pair = after[axis : axis + 2]
                    if len(after) == len(before) + 1 and (*before[:axis], *pair, *before[axis + 1 :]) == after:
                        if pair[0] * pair[1] == before[axis]:
                            found.setdefault((pair[0], pair[1]))
                        break
            return result

    with torch.no_grad(), Watch():
        network.eval()(example)
    return list(found)
