"""The optimiser of a training, and how its learning rate goes over the steps and the layers."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from phonefit.pipeline.recipe_steps import TrainConfig

WARM_UP_SHARE = 0.25  # of the steps of a cycle
MOMENTUM = 0.9


def one_cycle(share: float) -> float:
    """Factor on the learning rate after that share of a cycle, 0..1."""
    if share < WARM_UP_SHARE:
        return 0.04 + 0.96 * share / WARM_UP_SHARE
    return 0.5 + 0.5 * math.cos(math.pi * (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def optimizer_of(
    network: nn.Module, along: nn.Module, config: TrainConfig, layer_decay: float
) -> torch.optim.Optimizer:
    """Each of its groups has the share `rate` of the learning rate, see `layer_decay` of FinetuneConfig.

    Weight decay is for weights, not for biases and BatchNorm (He et al. 2018, arXiv 1812.01187).

    Args:
        along: what learns with the network and is no part of it.
    """
    groups: list[dict[str, Any]] = []
    for rate, parameters in _by_rate(network, along, layer_decay):
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        weights, others = ([one for one in learning if (one.ndim > 1) == many] for many in (True, False))
        groups.append({"params": weights, "weight_decay": config.weight_decay, "rate": rate})
        groups.append({"params": others, "weight_decay": 0.0, "rate": rate})
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _by_rate(network: nn.Module, along: nn.Module, layer_decay: float) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """Share of the learning rate -> parameters: one share for all, or a higher one for each layer in turn, up to 1."""
    if layer_decay == 1:
        yield 1.0, [*network.parameters(), *along.parameters()]
        return
    layers = [list(module.parameters(recurse=False)) for module in network.modules()]
    layers = [parameters for parameters in layers if parameters]
    for place, parameters in enumerate(layers):
        yield layer_decay ** (1 - place / max(1, len(layers) - 1)), parameters
    yield 1.0, list(along.parameters())
