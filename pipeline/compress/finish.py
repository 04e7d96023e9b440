"""The end that the techniques share: train with the parent as teacher, write the checkpoint with its lineage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import multiply_adds, parameters
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.recipe_steps import DecomposeConfig, DistilConfig, PruneConfig, RecoverConfig
from phonefit.pipeline.statistics import reestimate_statistics
from phonefit.pipeline.train import train


def train_and_save(
    network: nn.Module,
    checkpoint: Checkpoint,
    config: PruneConfig | DecomposeConfig | DistilConfig,
    training: RecoverConfig | DistilConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    notes: Sequence[str],
    resume: Path | None,
    title: str | None = None,
    details: Mapping[str, JsonValue] | None = None,
    architecture: Architecture | None = None,
) -> Checkpoint:
    """Train `network`, the changed network of `checkpoint`, and save it; the quantisation asked for is kept.

    `title` is shown while it trains and seeds it; None: the technique's name. `details` go into the lineage.
    `architecture` is that of a new network; None: the checkpoint's.
    """
    if config.technique != "distil":
        with deterministic(context, f"{config.technique} statistics"):
            reestimate_statistics(network, context)
    outcome = train(
        network,
        context,
        training.settings(),
        title=title or config.technique,
        teacher=parent.load() if training.epochs > 0 and (training.teacher_weight > 0 or training.features) else None,
        temperature=training.temperature,
        teacher_weight=training.teacher_weight,
        features=training.features,
        resume=resume,
    )
    quality = context.task.quality
    summary = outcome.summary(quality) if training.epochs else f"{quality} {outcome.metrics[quality]:.4f}, not trained"
    lineage = Lineage(
        parent=checkpoint.digest,
        stage=config.technique,
        config={**config.as_json(), **(details or {}), "notes": [*notes, summary]},
    )
    info = checkpoint.info.model_copy(
        update={
            "architecture": architecture or checkpoint.info.architecture,
            "metrics": outcome.metrics,
            "decoding": outcome.decoding,
            "lineage": (*checkpoint.info.lineage, lineage),
        }
    )
    return Checkpoint.save(destination, network, info)


def cost_note(before: nn.Module, after: nn.Module, architecture: Architecture) -> str:
    """Parameters and multiply-adds before and after, as a sentence."""
    old, new = parameters(before), parameters(after)
    old_work, new_work = multiply_adds(before, architecture), multiply_adds(after, architecture)
    return (
        f"parameters {old:,} -> {new:,} ({new / max(1, old) - 1:+.1%}), "
        f"multiply-adds {old_work:,} -> {new_work:,} ({new_work / max(1, old_work) - 1:+.1%})"
    )


def cost_of(network: nn.Module, architecture: Architecture) -> str:
    """Parameters and multiply-adds, in words."""
    return f"parameters {parameters(network):,}, multiply-adds {multiply_adds(network, architecture):,}"
