"""What each layer costs, and the shapes with which it is called."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import LayerCost, example_input, layer_costs
from phonefit.pipeline.explain.result import LayerCosts

FLOAT_BYTES, INT8_BYTES = 4, 1
OF_A_CHANNEL = 8  # a float32 scale and an int32 bias


@dataclass(frozen=True)
class Called:
    """A layer with the shapes of its calls.

    Attributes:
        inputs: of each call, without the batch.
        outputs: likewise.
    """

    layer: nn.Conv2d | nn.Linear
    cost: LayerCost
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def called_layers(network: nn.Module, architecture: Architecture) -> dict[str, Called]:
    """Each convolution and linear layer that a forward pass calls, by dotted name, in the order of the first calls."""
    shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}

    def note(name: str, inputs: Tensor, outputs: Tensor) -> None:
        shapes.setdefault(name, []).append((tuple(inputs.shape[1:]), tuple(outputs.shape[1:])))

    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    handles = [
        module.register_forward_hook(lambda layer, inputs, outputs, name=name: note(name, inputs[0], outputs))
        for name, module in layers.items()
    ]
    try:
        with torch.no_grad():
            network.eval()(example_input(architecture))
    finally:
        for handle in handles:
            handle.remove()
    costs = layer_costs(network, architecture)
    return {
        name: Called(layers[name], costs[name], tuple(one for one, _ in calls), tuple(one for _, one in calls))
        for name, calls in shapes.items()
    }


def costs_of(name: str, called: Called) -> LayerCosts:
    """The figures of one layer."""
    layer = called.layer
    weights, outputs = layer.weight.numel(), layer.weight.shape[0]
    return LayerCosts(
        name=name,
        kind=kind_of_layer(layer),
        output=called.outputs[0],
        calls=len(called.outputs),
        float_bytes=FLOAT_BYTES * (weights + (outputs if layer.bias is not None else 0)),
        int8_bytes=INT8_BYTES * weights + OF_A_CHANNEL * outputs,
        multiply_adds=called.cost.multiply_adds,
    )


def kind_of_layer(layer: nn.Conv2d | nn.Linear) -> str:
    """In words: "linear", "conv 3x3 /2", "depthwise 5x5", "grouped 1x1"."""
    if isinstance(layer, nn.Linear):
        return "linear"
    depthwise = 1 < layer.groups == layer.out_channels
    word = "depthwise" if depthwise else "grouped" if layer.groups > 1 else "conv"
    return f"{word} {_by(layer.kernel_size)}" + (f" /{_once(layer.stride)}" if max(layer.stride) > 1 else "")


def _by(pair: Sequence[int]) -> str:
    return "x".join(map(str, pair))


def _once(pair: Sequence[int]) -> str:
    return str(pair[0]) if len(set(pair)) == 1 else _by(pair)
