"""Bias correction: what rounding shifts in the mean of a layer's output is taken out of its bias.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section
4.2, in its empirical form (appendix D): layer by layer, each on inputs that the layers before it, already corrected,
give in int8.
"""

import torch
from torch import Tensor, nn

from phonefit.models.quantisation import Quantisation
from phonefit.models.spec import Architecture
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import Layer, trace

PICTURES = 32  # of the calibration set; all their values of a layer are in memory at once, twice


def correct_biases(
    network: nn.Module, architecture: Architecture, samples: Floats, quantisation: Quantisation
) -> list[str]:
    """Shift the biases of the int8 layers of `network` in place; returns a note on what was done.

    A layer with a BatchNorm is shifted through that BatchNorm's bias, one without any bias gets one.

    Args:
        samples: float32 [n, 3, height, width], the calibration set.

    Raises:
        ModelError: the network cannot be exported.
    """
    simulated = fake_quantised(trace(network, architecture), quantisation, samples)
    layers = {layer.node: layer for layer in simulated.layers}
    pictures = torch.from_numpy(samples[:PICTURES])
    exact, rounded = simulated.walk(frozenset()), simulated.walk(simulated.rounding)
    before = []
    with torch.no_grad():
        for (node, wanted), (_, got) in zip(exact.through(pictures), rounded.through(pictures), strict=True):
            if node not in layers:
                continue
            others = [dimension for dimension in range(wanted.dim()) if dimension != 1]
            shift = (wanted - got).mean(others)
            before.append(float(shift.abs().mean() / wanted.std().clamp(min=1e-12)))
            _shift(network, layers[node], shift)
            got += shift.reshape(1, -1, *[1] * (wanted.dim() - 2))
    mean = sum(before) / max(1, len(before))
    return [f"corrected the biases of {len(before)} layers, by {mean:.2%} of the deviation of their outputs on average"]


def _shift(network: nn.Module, layer: Layer, shift: Tensor) -> None:
    """Add `shift`, float32 [outputs], to what the layer and its BatchNorm give."""
    owner = network.get_submodule(layer.name)
    if layer.norm_name is not None:
        norm = network.get_submodule(layer.norm_name)
        if norm.bias is None:  # a BatchNorm without weights: (x - mean) / deviation
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            assert isinstance(norm.eps, float)
            mean.sub_(shift * (variance + norm.eps).sqrt())
            return
        owner = norm
    if owner.bias is None:
        owner.bias = nn.Parameter(shift.clone())
    else:
        assert isinstance(owner.bias, nn.Parameter)
        owner.bias.add_(shift)
