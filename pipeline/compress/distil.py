"""Distillation: the current network learns from the fine-tuned parent's outputs."""

from pathlib import Path

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.finish import train_and_save
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe_steps import DistilConfig


def distil(
    checkpoint: Checkpoint,
    config: DistilConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Train the checkpoint's network on the labels and on the teacher's logits (Hinton et al. 2015, arXiv 1503.02531).

    Where the student is still the parent itself, only the labels teach it something at first.

    Raises:
        TrainingError: the training diverges.
    """
    return train_and_save(
        checkpoint.load(), checkpoint, config, config, context, destination, parent, notes=(), resume=resume
    )
