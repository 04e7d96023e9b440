"""Distillation: the current network, or a new one of another family, learns from the fine-tuned parent."""

from pathlib import Path

from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.registry import build_network, check_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.weights import initialise
from phonefit.pipeline.compress.finish import cost_of, train_and_save
from phonefit.pipeline.compress.student import architecture_of_student
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import DistilConfig, StudentConfig


def distil(
    checkpoint: Checkpoint,
    config: DistilConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Train the student on the labels, on the teacher's outputs (Hinton et al. 2015, arXiv 1503.02531) and, if asked
    for, on its inner activations.

    Without `student` it is the checkpoint's network; where that is still the parent itself, only the labels teach it
    something at first. With `student` it is a new network, which takes the same inputs and gives the same outputs.

    Raises:
        RecipeError: a new student after a step that would be lost, or features that do not fit the two networks.
        ModelError: the student cannot be built as asked, or has no packaged weights.
        TrainingError: the training diverges.
    """
    if config.student is None:
        return train_and_save(
            checkpoint.load(), checkpoint, config, config, context, destination, parent, notes=(), resume=resume
        )
    if checkpoint.digest != parent.digest:
        done = ", ".join(step.stage for step in checkpoint.info.lineage[len(parent.info.lineage) :])
        raise RecipeError(f"distil: a new student would undo {done}; put the step with `student` before them")
    architecture = architecture_of_student(config.student, checkpoint.info.architecture)
    with deterministic(context, "student"):
        network, notes = _new_student(config.student, architecture, context)
    notes.insert(0, f"{cost_of(checkpoint.load(), checkpoint.info.architecture)} -> {cost_of(network, architecture)}")
    return train_and_save(
        network,
        checkpoint,
        config,
        config,
        context,
        destination,
        parent,
        notes,
        resume,
        architecture=architecture,
    )


def _new_student(student: StudentConfig, architecture: Architecture, context: Context) -> tuple[nn.Module, list[str]]:
    network = build_network(architecture)
    loaded = initialise(network, architecture, student.weights, decoding=context.task.decoding)
    notes = [f"the student is a new {student.family}: {loaded}"]
    check_network(network, architecture)
    usual, given = model_spec(student.family).preprocess, context.data.preprocess
    if student.weights == "pretrained" and (usual.mean, usual.std) != (given.mean, given.std):
        notes.append(
            f"its weights were made for pixels of mean {usual.mean} and deviation {usual.std}; it gets those of the "
            f"recipe, {given.mean} and {given.std}, and has to learn the difference"
        )
    return network, notes
