"""What a network costs to run: parameters and multiply-adds."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phonefit.models.errors import ModelError
from phonefit.models.layers import unknown_layers
from phonefit.models.spec import Architecture
from phonefit.pipeline.errors import RecipeError


@dataclass(frozen=True)
class LayerCost:
    """One convolution or linear layer, for one picture.

    Attributes:
        multiply_adds: multiplications with a weight; bias, BatchNorm and activations are not counted.
        positions_in: places of the input at which a 1x1 layer would work: height x width, or 1 for a vector.
        positions_out: places of the output.
        positions_between: places after the rows of a kernel were applied and before its columns: height of the output
            x width of the input.
    """

    multiply_adds: int
    positions_in: int
    positions_out: int
    positions_between: int = 0


def example_input(architecture: Architecture) -> Tensor:
    """A black picture: float32 [1, 3, height, width]."""
    return torch.zeros(1, 3, architecture.height, architecture.width_pixels)


def layer_costs(network: nn.Module, architecture: Architecture) -> dict[str, LayerCost]:
    """Cost of each convolution and linear layer that a forward pass calls, summed over its calls, by dotted name."""
    costs: dict[str, LayerCost] = {}

    def count(name: str, layer: nn.Conv2d | nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            places_in, places_out = inputs.shape[-2] * inputs.shape[-1], outputs.shape[-2] * outputs.shape[-1]
            places_between = outputs.shape[-2] * inputs.shape[-1]
        else:
            places_in = places_out = places_between = outputs.numel() // layer.out_features
        before = costs.get(name, LayerCost(0, 0, 0))
        costs[name] = LayerCost(
            before.multiply_adds + layer.weight.numel() * places_out,
            before.positions_in + places_in,
            before.positions_out + places_out,
            before.positions_between + places_between,
        )

    handles = [
        module.register_forward_hook(lambda layer, inputs, outputs, name=name: count(name, layer, inputs[0], outputs))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        network.eval()
        with torch.no_grad():
            network(example_input(architecture))
    finally:
        for handle in handles:
            handle.remove()
    return costs


def multiply_adds(network: nn.Module, architecture: Architecture) -> int:
    """Multiply-adds of all convolutions and linear layers for one picture."""
    return sum(cost.multiply_adds for cost in layer_costs(network, architecture).values())


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def check_layers(network: nn.Module, names: Iterable[str], option: str) -> None:
    """Every name must be that of a module.

    Raises:
        RecipeError: with the names that the network has.
    """
    if problem := unknown_layers(network, names):
        raise RecipeError(f"{option}: {problem}")


def check_runs(network: nn.Module, architecture: Architecture, technique: str) -> None:
    """The changed network must still map a picture to its outputs.

    Raises:
        ModelError: it does not.
    """
    try:
        with torch.no_grad():
            shape = tuple(network.eval()(example_input(architecture)).shape)
    except (RuntimeError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{technique}: the network no longer runs ({error}); name the layers to leave in `keep`"
        ) from error
    if shape != (1, architecture.outputs):
        raise ModelError(
            f"{technique}: the network's output became {shape}, expected {(1, architecture.outputs)}; "
            "name the layers to leave in `keep`"
        )
