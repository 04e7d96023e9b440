"""One compression step as a stage: through the store, so that trials with a common beginning share it."""

from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress import load_technique
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe_steps import StepConfig
from phonefit.pipeline.store import StageResult

# Raised when a technique gives another result for the same input.
CODE_VERSIONS: dict[str, int] = {"prune": 2, "decompose": 2, "distil": 2, "quantise": 1}
TOOLS: dict[str, tuple[str, ...]] = {
    "prune": ("torch", "torch-pruning"),
    "decompose": ("torch", "tensorly"),
    "distil": ("torch",),
    "quantise": (),
}


def compress_step(
    checkpoint: Checkpoint, step: StepConfig, context: Context, parent: Checkpoint
) -> tuple[StageResult, Checkpoint]:
    """Apply one technique; a result that is in the store is reused, an interrupted training goes on.

    Args:
        parent: the fine-tuned checkpoint, the teacher.

    Raises:
        RecipeError: the step does not fit the checkpoint: a layer that does not exist, a second quantisation.
        ModelError: the changed network cannot be recorded or no longer runs.
        TrainingError: the training diverges.
    """
    stage = step.technique
    inputs = {"checkpoint": checkpoint.digest}
    config: dict[str, JsonValue] = {"step": step.as_json()}
    if stage != "quantise":  # the others train or evaluate
        inputs |= {"parent": parent.digest, "data": context.data.digest}
        config |= {"seed": context.seed, "threads": context.threads, "torch_device": context.torch_device}
    tools = {name: version(name) for name in TOOLS[stage]}
    resume = context.store.resume_file(context.store.key(stage, inputs, config, CODE_VERSIONS[stage], tools))

    def build(folder: Path) -> None:
        load_technique(stage)(checkpoint, step, context, folder, parent, resume)

    result = context.store.compute(stage, inputs, config, CODE_VERSIONS[stage], build, tools)
    return result, Checkpoint(result.path)
