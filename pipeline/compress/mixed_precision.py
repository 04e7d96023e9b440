"""Mixed precision: the layers that int8 costs most stay in float, as few as a limit asks for, or as many as it allows.

Sensitivity first, then a greedy choice: Dong et al. 2019 (HAWQ, arXiv 1905.03696) rank by the Hessian, here the
measured errors of the outputs rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import in_layers
from phonefit.models.quantisation import Quantisation
from phonefit.models.tasks.task import holds, least_quality
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.compress.layer_sensitivity import layer_sensitivity
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import MixedConfig
from phonefit.pipeline.train import validation_metrics

FLOAT_BYTES, INT8_BYTES = 4, 1
LARGEST_SHARE = 0.25  # a block holds at most this share of the layers
SHOWN = 5  # layers in a note


@dataclass(frozen=True)
class Unit:
    """Layers that stay in float together: a block of the network, or a single layer outside of blocks.

    Each border between int8 and float is an operator more, so layers of one block go together.

    Attributes:
        name: dotted name of the block or layer.
        error: sum of the errors that int8 in each of its layers makes.
        weights: number of weights.
    """

    name: str
    error: float
    weights: int

    @property
    def extra_bytes(self) -> int:
        """What float weights take more than int8 ones."""
        return self.weights * (FLOAT_BYTES - INT8_BYTES)


def choose_float_layers(
    network: nn.Module, checkpoint: Checkpoint, context: Context, quantisation: Quantisation, config: MixedConfig
) -> tuple[tuple[str, ...], list[str]]:
    """Names for float_layers so that the limit holds, and notes that explain the choice.

    With `quality_drop`: units in the order of their errors, the fewest with which the fake-quantised network loses at
    most that much of the quality metric of the float network on the validation side. With `bytes`: units in the order
    of their errors per byte, all that fit.

    Raises:
        RecipeError: even all layers in int8 take more bytes.
        ModelError: the network cannot be exported.
    """
    architecture = checkpoint.info.architecture
    errors = layer_sensitivity(network, architecture, context.data, quantisation, context.progress)
    units = units_of(network, errors)
    worst = sorted(errors, key=lambda name: -errors[name])[:SHOWN]
    notes = ["most sensitive to int8: " + ", ".join(f"{name} (error {errors[name]:.2g})" for name in worst)]
    if config.bytes is not None:
        chosen, note = _within_bytes(network, units, config.bytes)
    else:
        assert config.quality_drop is not None
        chosen, note = _within_drop(network, checkpoint, context, quantisation, units, config.quality_drop)
    return tuple(unit.name for unit in chosen), [*notes, note]


def units_of(network: nn.Module, errors: Mapping[str, float]) -> list[Unit]:
    """The layers of `errors` in blocks: for each the smallest module that holds several layers, but not many."""
    most = max(2, int(LARGEST_SHARE * len(errors)))
    blocks: dict[str, list[str]] = {}
    for layer in errors:
        parts = layer.split(".")
        parents = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
        sizes = {parent: sum(in_layers(name, (parent,)) for name in errors) for parent in parents}
        block = next((parent for parent in parents if sizes[parent] > 1), layer)
        blocks.setdefault(block if sizes.get(block, 1) <= most else layer, []).append(layer)
    return [
        Unit(
            block,
            sum(errors[layer] for layer in layers),
            sum(network.get_parameter(f"{layer}.weight").numel() for layer in layers),
        )
        for block, layers in blocks.items()
    ]


def _within_bytes(network: nn.Module, units: Sequence[Unit], limit: int) -> tuple[list[Unit], str]:
    least = sum(unit.weights * INT8_BYTES for unit in units)
    if least > limit:
        raise RecipeError(
            f"quantise: mixed: bytes {limit:,} is too small: the weights take {least:,} bytes with every layer in "
            "int8; raise it, or prune first"
        )
    chosen, remaining = [], limit - least
    for unit in sorted(units, key=lambda unit: -unit.error / max(1, unit.extra_bytes)):
        if unit.extra_bytes <= remaining:
            chosen.append(unit)
            remaining -= unit.extra_bytes
    return chosen, (
        f"{_named(chosen)} in float: the weights take {limit - remaining:,} of {limit:,} bytes, {least:,} all in int8"
    )


def _within_drop(
    network: nn.Module,
    checkpoint: Checkpoint,
    context: Context,
    quantisation: Quantisation,
    units: Sequence[Unit],
    limit: float,
) -> tuple[list[Unit], str]:
    ranked = sorted(units, key=lambda unit: -unit.error)
    name = context.task.quality
    wanted = least_quality(context.task, validation_metrics(network.to(context.torch()), context)[name], limit)
    bound = "at least" if context.task.better == "higher" else "at most"
    traced = trace(network, checkpoint.info.architecture)
    samples = context.data.calibration(quantisation.calibration)
    known: dict[int, float] = {}

    def is_met(count: int) -> bool:
        """Whether the limit holds with the first `count` units in float."""
        layers = (*quantisation.float_layers, *(unit.name for unit in ranked[:count]))
        asked = quantisation.model_copy(update={"float_layers": layers})
        simulated = fake_quantised(traced.cpu(), asked, samples).module.to(context.torch())
        known[count] = validation_metrics(simulated, context)[name]
        return holds(context.task, known[count], wanted)

    with context.progress.stage("layers that stay in float") as advance:
        low, high = 0, len(ranked)  # with all in float it holds
        while low < high:
            middle = 0 if not known else (low + high) // 2  # mostly int8 alone will do
            advance(1, f"{middle} of {len(ranked)} blocks")
            low, high = (low, middle) if is_met(middle) else (middle + 1, high)
    chosen = ranked[:low]
    if not chosen:
        return (
            [],
            f"no layer stays in float: {name} {known[0]:.4f} in int8, as simulated, {bound} {wanted:.4f} is asked",
        )
    if low == len(ranked):
        return chosen, f"every layer stays in float: int8 costs more than {limit} of {name} even in one block"
    return chosen, (
        f"{_named(chosen)} in float: {name} {known[0]:.4f} -> {known[low]:.4f}, as simulated on the validation side; "
        f"{bound} {wanted:.4f} is asked"
    )


def _named(units: Sequence[Unit]) -> str:
    if not units:
        return "no layer stays"
    return f"{', '.join(unit.name for unit in units)} {'stays' if len(units) == 1 else 'stay'}"
