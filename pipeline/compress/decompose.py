"""Decomposition: layers replaced by low-rank factors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.cost import check_layers, check_runs, layer_costs
from phonefit.pipeline.compress.decompose_plan import Plan, Replacement, Study, plan_replacements
from phonefit.pipeline.compress.finish import cost_note, train_and_save
from phonefit.pipeline.compress.on_device import keep_faster
from phonefit.pipeline.compress.sensitivity import replace_layer
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic, seed_of
from phonefit.pipeline.recipe_steps import DecomposeConfig

COUNTED = ("they are grouped or depthwise",)  # reasons for which a number says as much as names


def decompose(
    checkpoint: Checkpoint,
    config: DecomposeConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Replace layers by factors where that saves work, then recover with the parent as teacher.

    The methods are in `factors`, the choice of ranks in `ranks`. Grouped convolutions stay as they are. The lineage
    holds each replacement with its ranks, error and costs.

    Raises:
        RecipeError: `keep` names a layer that does not exist, the target cannot be reached, no device is there to ask.
        ModelError: the network no longer runs.
        ConversionError, DeviceError, MeasurementError: the device was to be asked, and cannot tell.
        TrainingError: the recovery diverges.
    """
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    check_layers(network, config.keep, "decompose: keep")
    with deterministic(context, "decompose"):
        pictures = torch.from_numpy(context.data.calibration(config.calibration))
        study = Study(pictures, context.task, seed_of(context, "decompose inputs"), context.progress)
        plan = plan_replacements(network, config, layer_costs(network, architecture), study)
        if config.on_device:
            plan = keep_faster(plan, checkpoint, context)
        apply(network, plan.replacements)
        check_runs(network, architecture, "decompose")
        notes = [cost_note(checkpoint.load(), network, architecture), *describe(plan)]
    details: dict[str, JsonValue] = {"layers": [one.as_json() for one in plan.replacements.values()]}
    return train_and_save(
        network, checkpoint, config, config.recover, context, destination, parent, notes, resume, details=details
    )


def apply(network: nn.Module, replacements: Mapping[str, Replacement]) -> None:
    """Put the factors into `network`, in place."""
    for name, replacement in replacements.items():
        replace_layer(network, name, replacement.layers)


def describe(plan: Plan) -> list[str]:
    """Notes on what was replaced and what was left alone."""
    replaced = [
        f"{name} {one.method} rank {'x'.join(map(str, one.ranks))} error {one.error:.3f}"
        for name, one in plan.replacements.items()
    ]
    notes = [f"replaced {len(replaced)} layers: {'; '.join(replaced)}" if replaced else "no layer was replaced"]
    return notes + [f"left alone, as {reason}: {_shown(reason, names)}" for reason, names in plan.left.items()]


def _shown(reason: str, names: Sequence[str]) -> str:
    return f"{len(names)} convolutions" if reason in COUNTED else ", ".join(names)
