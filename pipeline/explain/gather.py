"""The report on the layers of one checkpoint: gathered from the network, the techniques and the device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from phonefit.device_bench.devices import open_device
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.ask import ask_run_device
from phonefit.pipeline.compress.layer_sensitivity import PICTURES
from phonefit.pipeline.context import Context, Progress, SilentProgress
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.explain.costs import Called, called_layers, costs_of
from phonefit.pipeline.explain.effects import (
    Decomposition,
    Pruning,
    decompose_effects,
    int8_effects,
    probe_of,
    prune_effects,
)
from phonefit.pipeline.explain.result import Effect, Explanation, LayerCosts, LayerExplanation
from phonefit.pipeline.explain.timing import Times, times_alone
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_steps import DecomposeConfig, PruneConfig, QuantiseConfig, RecoverConfig
from phonefit.pipeline.run import open_checkpoint, open_context

STAGE = "explain"
CODE_VERSION = 1
FILE = "explanation.json"
TOOLS = ("torch", "torch-pruning", "tensorly", "scipy")


@dataclass(frozen=True)
class Assumed:
    """How each technique would be applied: as the recipe says, or as it does by default. No layer is kept."""

    int8: Quantisation
    prune: PruneConfig
    decompose: DecomposeConfig

    def in_words(self) -> dict[str, str]:
        """For people, by technique."""
        ranks = "VBMF" if self.decompose.ranks == "vbmf" else f"{self.decompose.energy:g} of the energy"
        return {
            "int8": f"{self.int8.granularity.replace('_', ' ')}, ranges by {self.int8.calibration.method}",
            "prune": f"criterion {self.prune.criterion}",
            "decompose": f"method {self.decompose.method}, ranks by {ranks}",
        }


def explain(
    recipe: Recipe,
    checkpoint: Path | None = None,
    *,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
    device: bool = True,
) -> Explanation:
    """What each layer costs and what each technique would do to it. Reads no validation or test picture.

    Args:
        checkpoint: folder of a checkpoint that was made with this recipe; None for the recipe's fine-tuned one, which
            is trained where the store has none.
        device: also ask the recipe's device what each layer takes.

    Raises:
        FileFormatError: `checkpoint` is not one.
        RecipeError: it was made for other data than the recipe's, or there are several devices to ask.
        DeviceError, MeasurementError: the device cannot be reached, or cannot measure.
    """
    if device and len(recipe.bench.devices) > 1:
        raise RecipeError(
            f"explain asks one device, bench.device names {', '.join(recipe.bench.devices)}; "
            f"give one, for example bench.device={recipe.bench.devices[0]}, or --no-device"
        )
    progress = progress or SilentProgress()
    if checkpoint is None:
        given, context = None, open_context(recipe, runs, progress)
    else:
        given, context = open_checkpoint(checkpoint, recipe, runs, progress)
    if not device:
        chosen = given or finetune(recipe, context)[1]
        return analysed(chosen, recipe, context)
    (name,) = recipe.bench.devices
    target = open_device(name)
    ask = ask_run_device(recipe, target, context)  # before anything long: it may not be there
    try:
        chosen = given or finetune(recipe, context)[1]
        found = analysed(chosen, recipe, context)
        layers = called_layers(chosen.load(), chosen.info.architecture)
        times = times_alone(layers, ask, chosen.info.quantisation or ask.quantisation)
    finally:
        target.cleanup()
    return with_times(found, times)


def assumed(recipe: Recipe, checkpoint: Checkpoint) -> Assumed:
    """The first step of each technique in the recipe, or the defaults; of a quantised checkpoint its own int8."""
    prune = next((step for step in recipe.steps if isinstance(step, PruneConfig)), PruneConfig(ratio=0.5))
    decompose = next((step for step in recipe.steps if isinstance(step, DecomposeConfig)), DecomposeConfig())
    if decompose.ranks == "budget":
        decompose = decompose.model_copy(update={"ranks": "energy", "target": None})
    plain = {"keep": (), "on_device": False, "recover": RecoverConfig()}
    return Assumed(
        _int8(recipe, checkpoint).model_copy(update={"float_layers": ()}),
        prune,
        decompose.model_copy(update=plain),
    )


def _int8(recipe: Recipe, checkpoint: Checkpoint) -> Quantisation:
    own = checkpoint.info.quantisation
    if own is not None and own.scheme == "int8_static":
        return own
    step = next((step for step in recipe.steps if isinstance(step, QuantiseConfig)), None)
    if step is None or step.scheme != "int8_static":
        return Quantisation()
    return Quantisation(granularity=step.granularity, calibration=step.calibration)


def analysed(checkpoint: Checkpoint, recipe: Recipe, context: Context) -> Explanation:
    """Costs and effects, without times; kept in the store."""
    how = assumed(recipe, checkpoint)

    def build(folder: Path) -> None:
        _analyse(checkpoint, how, context).save(folder / FILE)

    result = context.store.compute(
        STAGE,
        inputs={"checkpoint": checkpoint.digest, "data": context.data.digest},
        config={
            "int8": how.int8.as_json(),
            "criterion": how.prune.criterion,
            "decompose": how.decompose.as_json(),
            "seed": context.seed,
            "threads": context.threads,
        },
        code_version=CODE_VERSION,
        build=build,
        tools={name: version(name) for name in TOOLS},
    )
    return Explanation.load(result.path / FILE)


def _analyse(checkpoint: Checkpoint, how: Assumed, context: Context) -> Explanation:
    # on the processor, whatever the run trains on
    context = replace(context, torch_device="cpu")
    network = checkpoint.load()
    with deterministic(context, STAGE):
        called = called_layers(network, checkpoint.info.architecture)
        probe = probe_of(network, context, how.int8.calibration)
        int8 = int8_effects(network, checkpoint, context, how.int8)
        pruning = prune_effects(network, checkpoint, context, how.prune, probe, list(called))
        costs = {name: one.cost for name, one in called.items()}
        decomposition = decompose_effects(network, context, how.decompose, costs, probe)
    architecture = checkpoint.info.architecture
    return Explanation(
        checkpoint=checkpoint.digest,
        network=str(architecture.family or architecture.factory),
        pictures=min(PICTURES, len(probe.pictures)),
        settings=how.in_words(),
        layers=assembled(_costs(called), int8, pruning, decomposition),
    )


def _costs(called: Mapping[str, Called]) -> list[LayerCosts]:
    return [costs_of(name, one) for name, one in called.items()]


def assembled(
    costs: list[LayerCosts], int8: tuple[Mapping[str, Effect], str], pruning: Pruning, decomposition: Decomposition
) -> tuple[LayerExplanation, ...]:
    """One line for each layer out of what is known of all."""
    effects, reason = int8
    return tuple(
        LayerExplanation(
            **dict(one),
            int8=effects.get(one.name),
            int8_left="" if one.name in effects else reason,
            prune=pruning.effects.get(one.name, ()),
            pruned_with=pruning.together.get(one.name, ()),
            prune_left=pruning.left.get(one.name, ""),
            decompose=decomposition.effects.get(one.name),
            decompose_left=decomposition.left.get(one.name, ""),
        )
        for one in costs
    )


def with_times(found: Explanation, times: Times) -> Explanation:
    """The same with what the device told."""
    layers = [layer.model_copy(update={"nanoseconds": times.nanoseconds.get(layer.name)}) for layer in found.layers]
    return found.model_copy(
        update={"layers": tuple(layers), "timing": times.timing, "notes": (*found.notes, *times.notes)}
    )
