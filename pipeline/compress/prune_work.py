"""What a network costs without some of its channels, counted from its shapes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import layer_costs, parameters
from phonefit.pipeline.compress.prune_graph import Group, Plan
from phonefit.pipeline.recipe_steps import PruneConfig, PruneGoal

BYTES_OF_WEIGHT = 4


@dataclass(frozen=True)
class Work:
    """What a network costs.

    Attributes:
        multiply_adds: of convolutions and linear layers, for one picture.
        bytes: of its parameters in float32.
    """

    multiply_adds: int
    bytes: int

    def of(self, goal: PruneGoal) -> int:
        """The cost that a goal is about; multiply-adds stand for what only the device can tell."""
        return self.bytes if goal == "bytes" else self.multiply_adds


class Shapes:
    """Costs of a network without some channels, from its shapes: exact, and no copy is made."""

    def __init__(self, network: nn.Module, groups: Sequence[Group], architecture: Architecture) -> None:
        self._network, self._groups = network, groups
        self._work = {name: cost.multiply_adds for name, cost in layer_costs(network, architecture).items()}
        self._bytes = BYTES_OF_WEIGHT * parameters(network)

    def without(self, plan: Plan) -> Work:
        """The cost without these channels."""
        gone: Counter[tuple[str, str]] = Counter()
        for group in self._groups:
            channels = set(plan.get(group.root, ()))
            if channels:
                for member in group.members:
                    gone[member.layer, member.side] += sum(root in channels for root in member.roots)
        work, size = sum(self._work.values()), self._bytes
        for name in {layer for layer, _ in gone}:
            layer = self._network.get_submodule(name)
            weights, all_parameters = _kept(layer, gone[name, "out"], gone[name, "in"])
            size -= BYTES_OF_WEIGHT * (parameters(layer) - all_parameters)
            if name in self._work:
                work -= self._work[name] - self._work[name] // _kept(layer, 0, 0)[0] * weights
        return Work(work, size)


def _kept(layer: nn.Module, out: int, inside: int) -> tuple[int, int]:
    """Weights, and all parameters, of a layer that loses so many channels."""
    if isinstance(layer, nn.Linear):
        rows, columns, kernel = layer.out_features - out, layer.in_features - inside, 1
    elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        depthwise = 1 < layer.groups == layer.out_channels
        rows, kernel = layer.out_channels - out, layer.weight.shape[2:].numel()
        columns = layer.in_channels // layer.groups if depthwise else (layer.in_channels - inside) // layer.groups
    else:  # one value for each channel in each of its tensors
        sizes = [parameter.numel() - out for parameter in layer.parameters()]
        return sizes[0], sum(sizes)
    weights = rows * columns * kernel
    return weights, weights + (rows if layer.bias is not None else 0)


def goal_of(config: PruneConfig, original: Work) -> tuple[PruneGoal, float] | None:
    """What the step aims at and the largest value that meets it; None where it aims at a share of the channels."""
    if config.multiply_adds is not None:
        share = config.multiply_adds < 1
        return "multiply_adds", config.multiply_adds * original.multiply_adds if share else config.multiply_adds
    if config.bytes is not None:
        return "bytes", config.bytes
    if config.latency_ms is not None:
        return "latency_ms", config.latency_ms
    return None if config.instructions is None else ("instructions", config.instructions)
