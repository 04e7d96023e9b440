"""BatchNorm's running statistics: estimated anew after a network was changed, quick to follow while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from phonefit.models.data.preprocess import normalise
from phonefit.pipeline.context import Context

LEAST_MOMENTUM = 0.1
"""PyTorch's default. Networks that were made for long trainings have 0.01, with which a fine-tune of a few hundred
steps ends before the statistics have caught up with the weights."""
PICTURES = 512
BATCH = 64


@contextmanager
def quick_statistics(network: nn.Module) -> Iterator[None]:
    """While it lasts, each BatchNorm follows with a momentum of at least `LEAST_MOMENTUM`."""
    momenta = {norm: norm.momentum for norm in _norms(network) if norm.momentum is not None}
    for norm, momentum in momenta.items():
        norm.momentum = max(momentum, LEAST_MOMENTUM)
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def reestimate_statistics(network: nn.Module, context: Context) -> None:
    """Set the running statistics to the averages over `PICTURES` pictures of the training side, in place.

    After channels were removed or layers replaced, the old statistics describe activations that no longer exist
    (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", arXiv 2105.07576, section 3). The network ends in eval mode.
    """
    norms = [norm for norm in _norms(network) if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    rows = np.random.default_rng(context.seed).permutation(len(context.data.targets("train")))[:PICTURES]
    try:
        with torch.no_grad():
            for start in range(0, len(rows), BATCH):
                chosen = rows[start : start + BATCH]
                if start and len(chosen) == 1:  # BatchNorm cannot take a single value per channel
                    continue
                pixels = context.data.pixels("train")[np.sort(chosen)]
                network(torch.from_numpy(normalise(pixels, context.data.preprocess)).to(context.torch()))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
