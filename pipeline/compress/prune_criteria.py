"""How important a channel is: criteria by name. Each gives a score for every channel of every layer."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phonefit.models.data.preprocess import normalise
from phonefit.pipeline.compress.prune_graph import Group
from phonefit.pipeline.compress.prune_units import Side
from phonefit.pipeline.context import Context
from phonefit.pipeline.criterion import criterion as criterion_of
from phonefit.pipeline.errors import UnknownNameError

PICTURES = 256
"""Of the training side, for the criteria that look at pictures."""
BATCH = 16

Scores = Mapping[tuple[str, Side], Tensor]
"""(layer, side) -> float64 [channels on that side]."""
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d
Criterion = Callable[[nn.Module, Context], Scores]


def magnitude(network: nn.Module, context: Context) -> Scores:
    """Squared norm of the weights that make, scale or read a channel (Li et al. 2017, arXiv 1608.08710)."""
    return {
        (name, side): by_channel(layer, layer.weight.detach().double().square(), side)
        for name, layer in _layers(network)
        for side in _sides(layer)
    }


def bn_scale(network: nn.Module, context: Context) -> Scores:
    """Absolute scale of BatchNorm (Liu et al. 2017, arXiv 1708.06519). Groups without BatchNorm have no score."""
    return {
        (name, "out"): layer.weight.detach().double().abs()
        for name, layer in _layers(network)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    }


def taylor(network: nn.Module, context: Context) -> Scores:
    """Squared first-order estimate of what the loss changes by when the weights of a channel become zero.

    (sum of weight x gradient)^2, averaged over small batches in eval mode (Molchanov et al. 2019, arXiv 1906.10771).
    """
    network = copy.deepcopy(network).eval().requires_grad_(True).to(context.torch())
    scores: dict[tuple[str, Side], Tensor] = {}
    targets = context.data.targets("train")
    loss_of = criterion_of(network, context)
    with torch.enable_grad():
        for rows, inputs in _batches(context):
            network.zero_grad(set_to_none=True)
            wanted = torch.from_numpy(np.ascontiguousarray(targets[rows])).to(context.torch())
            loss = loss_of(network(inputs), wanted, None)
            loss.backward()
            for name, layer in _layers(network):
                if layer.weight.grad is None:
                    continue
                products = (layer.weight * layer.weight.grad).detach().double()
                for side in _sides(layer):
                    change = by_channel(layer, products, side)
                    if side == "out" and layer.bias is not None and layer.bias.grad is not None:
                        change = change + (layer.bias * layer.bias.grad).detach().double()
                    key = (name, side)
                    scores[key] = scores.get(key, torch.zeros_like(change)) + change.square() * len(rows)
    return {key: value.cpu() for key, value in scores.items()}


def activation(network: nn.Module, context: Context) -> Scores:
    """Mean absolute value of a channel where the next layer reads it, so after its activation.

    In the spirit of the share of zeros of Hu et al. 2016 (arXiv 1607.03250), for any activation function.
    """
    network = copy.deepcopy(network).eval().to(context.torch())
    scores: dict[tuple[str, Side], Tensor] = {}

    def note(name: str, layer: nn.Module, inputs: Tensor) -> None:
        axis = -1 if isinstance(layer, nn.Linear) else 1
        mean = inputs.detach().double().abs().movedim(axis, 0).flatten(1).mean(1) * len(inputs)
        key: tuple[str, Side] = (name, "out" if _is_depthwise(layer) else "in")
        scores[key] = scores.get(key, torch.zeros_like(mean)) + mean

    for name, layer in _layers(network):
        if "in" in _sides(layer) or _is_depthwise(layer):
            layer.register_forward_pre_hook(lambda module, inputs, name=name: note(name, module, inputs[0]))
    with torch.no_grad():
        for _, inputs in _batches(context):
            network(inputs)
    return {key: value.cpu() for key, value in scores.items()}


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "activation": activation,
}


def criterion(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in CRITERIA:
        raise UnknownNameError("criterion", name, CRITERIA)
    return CRITERIA[name]


def group_importance(group: Group, scores: Scores) -> Tensor | None:
    """Importance of each unit of a group, float64 [units]: summed over the layers; 1 is the group's mean.

    None where no layer of the group has a score.
    """
    total = torch.zeros(group.size, dtype=torch.float64)
    known = False
    for member in group.members:
        score = scores.get((member.layer, member.side))
        if score is not None:
            total.scatter_add_(0, torch.tensor(member.roots), score[list(member.channels)])
            known = True
    if not known:
        return None
    units = torch.stack([total[list(unit)].mean() for unit in group.units])
    return torch.nan_to_num(units / units.mean(), nan=0.0)


def by_channel(layer: nn.Module, values: Tensor, side: Side) -> Tensor:
    """Sum of `values`, one for each weight of `layer`, over the weights of each channel: [channels on that side]."""
    if values.dim() == 1:
        return values
    rows = (side == "out") != isinstance(layer, nn.ConvTranspose2d)
    if rows:
        return values.flatten(1).sum(1)
    groups = getattr(layer, "groups", 1)
    return values.reshape(groups, values.shape[0] // groups, values.shape[1], -1).sum((1, 3)).flatten()


def _layers(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    for name, layer in network.named_modules():
        if isinstance(layer, Layer) and layer.weight is not None:  # a BatchNorm may have none
            yield name, layer


def _sides(layer: nn.Module) -> Sequence[Side]:
    return ("out",) if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) or _is_depthwise(layer) else ("out", "in")


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.out_channels


def _batches(context: Context) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Rows and normalised pictures of a seeded part of the training side."""
    rows = np.random.default_rng(context.seed).permutation(len(context.data.targets("train")))[:PICTURES]
    for start in range(0, len(rows), BATCH):
        chosen = np.sort(rows[start : start + BATCH])
        pixels = context.data.pixels("train")[chosen]
        yield chosen, torch.from_numpy(normalise(pixels, context.data.preprocess)).to(context.torch())
