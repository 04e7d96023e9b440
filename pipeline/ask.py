"""Asking the run's devices what a candidate costs, for compression steps that aim at a figure of the device."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.device import Device
from phonefit.device_bench.report import Report
from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import SUFFIXES, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import unknown_layers
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.budget import memory_limit
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import tools
from phonefit.pipeline.convert.stage import MODEL_NAME, converted
from phonefit.pipeline.measure import identity, measure
from phonefit.pipeline.recipe import BenchConfig, Recipe
from phonefit.pipeline.recipe_steps import QuantiseConfig


@dataclass(frozen=True)
class AskRunDevice:
    """Converts candidates for one runtime and measures them. Both go through the store: nothing is asked twice.

    Attributes:
        context: what converting and measuring need.
        quantisation: what the recipe ends with, for candidates that are not quantised yet.
        memory_limit_bytes: enforced by devices that can.
        identity: what an answer depends on besides the candidate.
    """

    context: Context
    device: Device
    runtime: Runtime
    bench: BenchConfig
    quantisation: Quantisation | None
    memory_limit_bytes: int | None
    identity: Mapping[str, JsonValue]

    def __call__(self, candidate: Checkpoint) -> Report:
        """The report of one candidate. What the file computes is not compared with the candidate.

        Raises:
            ConversionError: it cannot be converted.
            DeviceError, MeasurementError: it cannot be measured.
        """
        with tempfile.TemporaryDirectory(prefix="phonefit-candidate-") as folder:
            result = converted(self._quantised(candidate, Path(folder)), self.runtime, self.context)
        artifact, path = load_artifact(result.path / f"{MODEL_NAME}{SUFFIXES[self.runtime]}")
        _, report = measure(artifact, path, self.device, self.bench, self.context, self.memory_limit_bytes)
        return report

    def _quantised(self, candidate: Checkpoint, folder: Path) -> Checkpoint:
        """The candidate with the quantisation that the recipe ends with, written into `folder` where it lacks one."""
        if self.quantisation is None or candidate.info.quantisation is not None:
            return candidate
        network = candidate.load()
        # a factor of a later decomposition does not exist yet: the layer that it will be a part of stands for it
        layers = tuple(
            name.rpartition(".")[0] if unknown_layers(network, [name]) else name
            for name in self.quantisation.float_layers
        )
        asked = self.quantisation.model_copy(update={"float_layers": layers})
        return Checkpoint.save(folder, network, candidate.info.model_copy(update={"quantisation": asked}))


def ask_run_device(recipe: Recipe, device: Device, context: Context, runtime: Runtime | None = None) -> AskRunDevice:
    """What a run asks: one runtime, by default the recipe's first, on its device, quantised as its quantise step says.

    The energy is not measured.

    Raises:
        DeviceError: the device cannot be reached.
    """
    runtime, bench = runtime or recipe.convert.runtimes[0], recipe.bench.model_copy(update={"energy": False})
    limit, quantisation = memory_limit(recipe.limits), _quantisation(recipe)
    packages = {**tools(runtime), **runtime_module(runtime).versions()}
    answered_by: dict[str, JsonValue] = {
        **identity(device.info(), bench),
        "runtime": runtime,
        "quantisation": None if quantisation is None else quantisation.as_json(),
        "memory_limit_bytes": limit if device.limits_memory else None,
        "tools": {name: packages[name] for name in sorted(packages)},
    }
    return AskRunDevice(context, device, runtime, bench, quantisation, limit, answered_by)


@dataclass(frozen=True)
class AskSlowest:
    """Asks each of a run's devices. One of them is asked as by itself.

    Attributes:
        asks: one for each device, in the order of the recipe.
    """

    asks: Sequence[AskRunDevice]

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """What an answer depends on besides the candidate."""
        alone = [dict(ask.identity) for ask in self.asks]
        return alone[0] if len(alone) == 1 else {"devices": list[JsonValue](alone)}

    def reports(self, candidate: Checkpoint) -> tuple[Report, ...]:
        """The reports of one candidate on all devices.

        Raises:
            ConversionError: it cannot be converted.
            DeviceError, MeasurementError: it cannot be measured.
        """
        return tuple(ask(candidate) for ask in self.asks)

    def __call__(self, candidate: Checkpoint) -> Report:
        """The report on the slowest device. Raises as `reports`."""
        return max(self.reports(candidate), key=lambda report: report.median_milliseconds())


def ask_run_devices(
    recipe: Recipe, devices: Sequence[Device], context: Context, runtime: Runtime | None = None
) -> AskSlowest:
    """What a run asks of its devices; see `ask_run_device`.

    Args:
        devices: those of the recipe, in its order.

    Raises:
        DeviceError: a device cannot be reached.
    """
    recipes = [recipe.model_copy(update={"bench": recipe.bench.on(name)}) for name in recipe.bench.devices]
    pairs = zip(recipes, devices, strict=True)
    return AskSlowest([ask_run_device(alone, device, context, runtime) for alone, device in pairs])


def _quantisation(recipe: Recipe) -> Quantisation | None:
    for step in recipe.steps:
        if isinstance(step, QuantiseConfig):
            asked = {name: value for name, value in step.as_json().items() if name in Quantisation.model_fields}
            return Quantisation.model_validate(asked)
    return None
