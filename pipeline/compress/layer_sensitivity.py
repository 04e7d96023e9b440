"""What int8 costs each layer: one after the other is fake-quantised while the rest stays in float.

As in Wu et al. 2020, "Integer Quantization for Deep Learning Inference", arXiv 2004.09602, section 6.1.
"""

import torch
from torch import Tensor, nn
from torch.fx import Node

from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.fake_quantise import FakeQuantised, fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.context import Pictures, Progress, SilentProgress

PICTURES = 32
TITLE = "sensitivity of each layer to int8"


def layer_sensitivity(
    network: nn.Module,
    architecture: Architecture,
    data: Pictures,
    quantisation: Quantisation,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Error that int8 in one layer alone makes in the network's outputs, by dotted name, in the network's order.

    The error is the mean squared change of the outputs relative to their variance, on pictures of the calibration set:
    0 is none, 0.01 is a signal-to-noise ratio of 20 dB, from 1 on the outputs say nothing. It fits every task, as it
    looks at the outputs alone. A layer's own part is the rounding of its weight, of its input and of its output.

    Args:
        quantisation: granularity and calibration; its float_layers are left out.

    Raises:
        ModelError: the network cannot be exported.
    """
    samples = data.calibration(quantisation.calibration)
    simulated = fake_quantised(trace(network, architecture), quantisation, samples)
    pictures = torch.from_numpy(data.calibration(CalibrationSet(samples=PICTURES, seed=quantisation.calibration.seed)))
    first_of = _first_nodes(simulated)
    outputs: dict[str, Tensor] = {}
    with torch.no_grad(), (progress or SilentProgress()).stage(TITLE, len(simulated.layers)) as advance:
        exact = simulated.walk(frozenset())
        wanted = pictures
        for node, value in exact.through(pictures):
            wanted = value  # in the end, the output
            for layer in first_of.get(node.next, ()):
                branch = simulated.walk(simulated.quantisers[layer])
                outputs[layer] = branch.finish(node, exact.env)  # what comes before the layer is the same
                advance(1, layer)
    variance = (wanted - wanted.mean(0)).square().mean().clamp(min=torch.finfo(wanted.dtype).tiny)
    return {layer.name: float((outputs[layer.name] - wanted).square().mean() / variance) for layer in simulated.layers}


def _first_nodes(simulated: FakeQuantised) -> dict[Node, list[str]]:
    """Node -> the layers of whose rounding it is the first."""
    found: dict[Node, list[str]] = {}
    for layer, nodes in simulated.quantisers.items():
        first = next(node for node in simulated.module.graph.nodes if node in nodes)
        found.setdefault(first, []).append(layer)
    return found
