"""What int8, pruning and decomposition of each layer alone do to the network's outputs. Nothing is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.tasks.task import Task
from phonefit.pipeline.compress.cost import LayerCost
from phonefit.pipeline.compress.decompose_plan import Replacement, Study, plan_replacements
from phonefit.pipeline.compress.layer_sensitivity import PICTURES, layer_sensitivity
from phonefit.pipeline.compress.prune_criteria import criterion
from phonefit.pipeline.compress.prune_graph import Group, prunable_groups, with_zeros
from phonefit.pipeline.compress.prune_schedule import Ranked, ranked
from phonefit.pipeline.compress.sensitivity import replace_layer
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import seed_of
from phonefit.pipeline.errors import ModelError
from phonefit.pipeline.explain.result import SHARES_PRUNED, DecomposeEffect, Effect, PruneEffect
from phonefit.pipeline.recipe_steps import DecomposeConfig, PruneConfig

NOT_SIMULATED = "it is called more than once, or its weight is made while running"
OUTPUTS = "its channels are the network's outputs"
GOES_WITH = "its channels are the network's outputs, or go with those of a layer that is left alone"


@dataclass(frozen=True)
class Probe:
    """Compares the outputs of a changed network with what they were.

    Attributes:
        pictures: float32 [N, 3, height, width], of the calibration set.
        whole: outputs of the network as it is, float32 [N, outputs].
    """

    pictures: Tensor
    whole: Tensor
    task: Task

    def effect(self, network: nn.Module) -> Effect:
        """Error and loss of a changed network's outputs."""
        outputs = _outputs(network, self.pictures)
        variance = (self.whole - self.whole.mean(0)).square().mean().clamp(min=torch.finfo(self.whole.dtype).tiny)
        loss = max(0.0, float(self.task.distillation_loss(outputs, self.whole, 1.0)))
        return Effect(error=float((outputs - self.whole).square().mean() / variance), loss=loss)


def probe_of(network: nn.Module, context: Context, calibration: CalibrationSet) -> Probe:
    """The network as it is, on the pictures that the sensitivity to int8 is taken on."""
    pictures = torch.from_numpy(context.data.calibration(CalibrationSet(samples=PICTURES, seed=calibration.seed)))
    return Probe(pictures, _outputs(network, pictures), context.task)


def int8_effects(
    network: nn.Module, checkpoint: Checkpoint, context: Context, quantisation: Quantisation
) -> tuple[dict[str, Effect], str]:
    """Effect of int8 in each layer, and why the others have none."""
    try:
        errors = layer_sensitivity(network, checkpoint.info.architecture, context.data, quantisation, context.progress)
    except ModelError as error:
        return {}, str(error)
    return {name: Effect(error=value) for name, value in errors.items()}, NOT_SIMULATED


@dataclass(frozen=True)
class Pruning:
    """Effects by layer, the other layers of its group, and layer -> reason for those that are left alone."""

    effects: Mapping[str, tuple[PruneEffect, ...]]
    together: Mapping[str, tuple[str, ...]]
    left: Mapping[str, str]


def prune_effects(
    network: nn.Module,
    checkpoint: Checkpoint,
    context: Context,
    config: PruneConfig,
    probe: Probe,
    names: Sequence[str],
) -> Pruning:
    """Effect of zeros in the place of the least important channels of each layer, with all that follow them."""
    left: dict[str, str] = {}
    with context.progress.stage("explain: importance of channels"):
        scores = criterion(config.criterion)(network, context)
        try:
            groups, left = prunable_groups(network, checkpoint.info.architecture, ())
        except ModelError as error:
            return Pruning({}, {}, dict.fromkeys(names, str(error)))
    order = ranked(groups, scores, left, f"criterion {config.criterion} has no score for its layers")
    by_root = {group.root: group for group in groups}
    effects: dict[str, tuple[PruneEffect, ...]] = {}
    together: dict[str, tuple[str, ...]] = {}
    with context.progress.stage("explain: pruning each layer", len(order) * len(SHARES_PRUNED)) as advance:
        for one in order:
            group = by_root[one.root]
            found = []
            for share in SHARES_PRUNED:
                found.append(_pruned(network, group, one, share, probe))
                advance(1, one.root)
            layers = tuple(dict.fromkeys(member.layer for member in group.members if member.side == "out"))
            layers = tuple(layer for layer in layers if layer in names)
            for layer in layers:
                effects.setdefault(layer, tuple(found))
                together.setdefault(layer, tuple(other for other in layers if other != layer))
    other = GOES_WITH if left else OUTPUTS
    return Pruning(effects, together, {name: left.get(name, other) for name in names if name not in effects})


def _pruned(network: nn.Module, group: Group, order: Ranked, share: float, probe: Probe) -> PruneEffect:
    units = order.units[: max(1, round(share * len(order.units)))]
    channels = [channel for unit in units for channel in unit]
    effect = probe.effect(with_zeros(network, [group], {group.root: channels}))
    return PruneEffect(error=effect.error, loss=effect.loss, share=share, channels=len(channels))


@dataclass(frozen=True)
class Decomposition:
    """Effects by layer, and layer -> reason for those that are left alone."""

    effects: Mapping[str, DecomposeEffect]
    left: Mapping[str, str]


def decompose_effects(
    network: nn.Module, context: Context, config: DecomposeConfig, costs: Mapping[str, LayerCost], probe: Probe
) -> Decomposition:
    """Effect of the factors that a decompose step would put in the place of each layer. `network` stays as it is."""
    pictures = torch.from_numpy(context.data.calibration(config.calibration))
    study = Study(pictures, context.task, seed_of(context, "decompose inputs"), context.progress)
    plan = plan_replacements(network, config, costs, study)
    effects = {}
    with context.progress.stage("explain: decomposing each layer", len(plan.replacements)) as advance:
        for name, one in plan.replacements.items():
            effects[name] = _decomposed(network, one, probe)
            advance(1, name)
    left = {name: reason for reason, names in plan.left.items() for name in names}
    return Decomposition(
        effects, {name: left.get(name, "there are no factors of such a layer") for name in costs if name not in effects}
    )


def _decomposed(network: nn.Module, one: Replacement, probe: Probe) -> DecomposeEffect:
    before = replace_layer(network, one.layer.name, one.layers)
    try:
        effect = probe.effect(network)
    finally:
        replace_layer(network, one.layer.name, before)
    return DecomposeEffect(
        error=effect.error,
        loss=effect.loss,
        method=one.method,
        ranks=one.ranks,
        layer_error=one.error,
        multiply_adds=one.multiply_adds,
        parameters=one.parameters,
    )


def _outputs(network: nn.Module, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network.eval()(pictures)
    return outputs
