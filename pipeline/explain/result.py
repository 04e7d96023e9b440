"""Explanation: what is known of each layer. Written as JSON; shares and orders are derived on reading."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast, get_args

from phonefit.device_bench.report import Source
from phonefit.models.artifact import Runtime
from phonefit.models.errors import UnknownNameError
from phonefit.models.record import Frozen, Record

Order = Literal["time", "macs", "bytes", "int8", "prune", "decompose", "network"]
SHARES_PRUNED = (0.25, 0.5)


class Effect(Frozen):
    """What a change of one layer alone does to the network's outputs, on pictures of the calibration set, untrained.

    Attributes:
        error: mean squared change of the outputs relative to their variance: 0.01 is a signal-to-noise ratio of 20 dB,
            from 1 on the outputs say nothing.
        loss: the task's distillation loss to the outputs as they were; None where it was not taken.
    """

    error: float
    loss: float | None = None


class PruneEffect(Effect):
    """Effect of zeros in the place of the least important channels.

    Attributes:
        share: of the channels that was asked for.
        channels: how many that were.
    """

    share: float
    channels: int


class DecomposeEffect(Effect):
    """Effect of low-rank factors.

    Attributes:
        layer_error: relative, of the layer's own outputs.
        multiply_adds: of the factors, for one picture.
        parameters: weights of the factors.
    """

    method: str
    ranks: tuple[int, ...]
    layer_error: float
    multiply_adds: int
    parameters: int


class LayerCosts(Frozen):
    """One convolution or linear layer.

    Attributes:
        name: dotted.
        kind: for people, such as "depthwise 3x3 /2".
        output: shape of what one call gives, without the batch.
        calls: in one forward pass.
        float_bytes: weights and bias in float32.
        int8_bytes: weights in int8, and for each output channel a float32 scale and an int32 bias.
        multiply_adds: for one picture, summed over the calls.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    calls: int
    float_bytes: int
    int8_bytes: int
    multiply_adds: int


class LayerExplanation(LayerCosts):
    """What a layer costs and what each technique would do to it.

    Attributes:
        nanoseconds: of the layer alone on the device; None where the device was not asked, or cannot tell.
        int8: None where the layer is not simulated; `int8_left` says why.
        prune: for each share of SHARES_PRUNED; empty where the channels are left alone, as `prune_left` says.
        pruned_with: layers that would lose the same channels.
        decompose: None where the layer is left alone, as `decompose_left` says.
    """

    nanoseconds: float | None = None
    int8: Effect | None = None
    int8_left: str = ""
    prune: tuple[PruneEffect, ...] = ()
    pruned_with: tuple[str, ...] = ()
    prune_left: str = ""
    decompose: DecomposeEffect | None = None
    decompose_left: str = ""


class Timing(Frozen):
    """How the times were obtained.

    Attributes:
        source: "measured", or "modelled" where the device counts and has no time of its own.
        doubtful: how many of `asked` measurements are not to be trusted.
    """

    device: str
    runtime: Runtime
    precision: str
    threads: int
    source: Source
    asked: int
    doubtful: int


class Explanation(Record):
    """What is known of each layer of a checkpoint, in the order in which they are computed.

    Attributes:
        checkpoint: its digest.
        network: its family or factory.
        pictures: of the calibration set, that the effects were taken on.
        settings: what was assumed of each technique: name -> words.
        timing: None without a device.
    """

    schema_number: int = 1
    checkpoint: str
    network: str
    pictures: int
    settings: Mapping[str, str]
    layers: tuple[LayerExplanation, ...]
    timing: Timing | None = None
    notes: tuple[str, ...] = ()

    def shares(self, of: Callable[[LayerExplanation], float | None]) -> dict[str, float]:
        """Name -> share of the sum, of the layers that have a value; they sum to 1 unless all values are 0."""
        values = {layer.name: value for layer in self.layers if (value := of(layer)) is not None}
        total = sum(values.values())
        return {name: value / total if total else 0.0 for name, value in values.items()}

    def ordered(self, by: Order) -> list[LayerExplanation]:
        """The layers, the one with the largest value first; those without a value last, in the network's order."""
        if by == "network":
            return list(self.layers)
        values = [(ORDERS[by](layer), layer) for layer in self.layers]
        return [layer for _, layer in sorted(values, key=lambda pair: math.inf if pair[0] is None else -pair[0])]


def float_bytes(layer: LayerExplanation) -> float:
    """Bytes in float32."""
    return float(layer.float_bytes)


def multiply_adds(layer: LayerExplanation) -> float:
    """Multiply-adds."""
    return float(layer.multiply_adds)


def nanoseconds(layer: LayerExplanation) -> float | None:
    """Time on the device."""
    return layer.nanoseconds


def _last_error(effects: Sequence[Effect]) -> float | None:
    return effects[-1].error if effects else None


ORDERS: dict[str, Callable[[LayerExplanation], float | None]] = {
    "time": nanoseconds,
    "macs": multiply_adds,
    "bytes": float_bytes,
    "int8": lambda layer: None if layer.int8 is None else layer.int8.error,
    "prune": lambda layer: _last_error(layer.prune),
    "decompose": lambda layer: None if layer.decompose is None else layer.decompose.error,
}
"""What `Explanation.ordered` looks at."""


def order_named(name: str) -> Order:
    """The order of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    for known in get_args(Order):
        if name == known:
            return cast(Order, known)
    raise UnknownNameError("order", name, get_args(Order))
