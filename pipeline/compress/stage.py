"""One compression step as a stage: through the store, so that trials with a common beginning share it."""

from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.record import file_digest
from phonefit.models.registry import model_spec
from phonefit.pipeline.compress import load_technique
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import DecomposeConfig, DistilConfig, PruneConfig, QuantiseConfig, StepConfig
from phonefit.pipeline.store import StageResult

# Raised when a technique gives another result for the same input.
CODE_VERSIONS: dict[str, int] = {"prune": 3, "decompose": 3, "distil": 3, "quantise": 2}
TOOLS: dict[str, tuple[str, ...]] = {
    "prune": ("torch", "torch-pruning"),
    "decompose": ("torch", "tensorly", "scipy"),
    "distil": ("torch",),
    "quantise": ("torch",),
}


def compress_step(
    checkpoint: Checkpoint, step: StepConfig, context: Context, parent: Checkpoint
) -> tuple[StageResult, Checkpoint]:
    """Apply one technique; a result that is in the store is reused, an interrupted training goes on.

    Args:
        parent: the fine-tuned checkpoint, the teacher.

    Raises:
        RecipeError: the step does not fit the checkpoint: a layer that does not exist, a second quantisation, a target
            that cannot be met.
        ModelError: the changed network cannot be recorded or no longer runs.
        TrainingError: the training diverges.
    """
    stage = step.technique
    inputs = {"checkpoint": checkpoint.digest}
    config: dict[str, JsonValue] = {"step": step.as_json()}
    if not isinstance(step, QuantiseConfig) or step.reads_pictures:  # it trains or evaluates
        inputs |= {"parent": parent.digest, "data": context.data.digest}
        config |= {"seed": context.seed, "threads": context.threads, "torch_device": context.torch_device}
    if isinstance(step, DistilConfig) and step.student is not None and step.student.weights == "pretrained":
        weights = model_spec(step.student.family).pretrained
        inputs |= {} if weights is None else {"weights": file_digest(weights.locate())}
    if isinstance(step, DecomposeConfig) and step.on_device:
        if context.ask is None:
            raise RecipeError("decompose: on_device needs a device to measure on; set it to false")
        config["ask"] = dict(context.ask.identity)
    if isinstance(step, PruneConfig) and step.asks:
        if context.ask is None:
            raise RecipeError("prune: latency_ms and instructions need a device to measure on; use multiply_adds")
        config["ask"] = dict(context.ask.identity)
    tools = {name: version(name) for name in TOOLS[stage]}
    resume = context.store.resume_file(context.store.key(stage, inputs, config, CODE_VERSIONS[stage], tools))

    def build(folder: Path) -> None:
        load_technique(stage)(checkpoint, step, context, folder, parent, resume)

    result = context.store.compute(stage, inputs, config, CODE_VERSIONS[stage], build, tools)
    return result, Checkpoint(result.path)
