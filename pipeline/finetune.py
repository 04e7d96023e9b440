"""The fine-tuning stage: from a recipe's model and weights to a checkpoint that knows the person's labels."""

import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.decoding import RegressionDecoding
from phonefit.models.errors import FileFormatError, ModelError
from phonefit.models.factories import code_digest
from phonefit.models.record import digest_of, file_digest, write_atomically
from phonefit.models.registry import build_network, check_network, model_spec
from phonefit.models.spec import Architecture, Preprocess
from phonefit.models.tasks.task import Task, merit_of
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import TrialEndedError
from phonefit.pipeline.recipe import ModelConfig, Recipe
from phonefit.pipeline.recipe_steps import FinetuneConfig
from phonefit.pipeline.store import StageResult

STAGE = "finetune"
CODE_VERSION = 2
CACHED_FEATURES_VERSION = 2  # of `few_shot.py` alone; in the key of its results
LATER = ("layer_decay", "cached_features")  # settings that came after results had been stored
QUALITIES_FILE = "qualities.json"
AfterEpoch = Callable[[Sequence[float]], None]
# For a person's own factory: 224 pixels, the mean and deviation of ImageNet's pixels.
FACTORY_PREPROCESS = Preprocess(height=224, width=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
logger = logging.getLogger(__name__)


def base_preprocess(model: ModelConfig) -> Preprocess:
    """The model's usual preprocessing, before the recipe's `data.input` changes it.

    Raises:
        UnknownNameError: the family is not registered.
    """
    return FACTORY_PREPROCESS if model.family is None else model_spec(model.family).preprocess


def finetune(recipe: Recipe, context: Context, after_epoch: AfterEpoch | None = None) -> tuple[StageResult, Checkpoint]:
    """Build the recipe's network, load its weights, train it; a result that is in the store is reused.

    An interrupted training goes on after its last complete epoch. `after_epoch` is that of `train`; it is called for
    the epochs of a reused result as well, so that what it decides does not depend on what the store holds.

    Raises:
        TrialEndedError: `after_epoch` ended the training.
        ModelError: the network cannot be built as asked, or the weights do not fit it.
        FileFormatError: the weights are not a safetensors or weights-only file.
        TrainingError: the training diverges.
        StoreError: the run folder cannot be written.
    """
    preprocess = context.data.preprocess
    architecture = architecture_of(recipe.model, context.task, context.data.labels, preprocess)
    weights = weights_digest(recipe.model)
    inputs = {"data": context.data.digest, "weights": weights}
    config: dict[str, JsonValue] = {
        "architecture": architecture.as_json(),
        "finetune": _settings(recipe.finetune),
        "seed": context.seed,
        "task": context.task_identity,
        "labels": list(context.data.labels),
        "preprocess": preprocess.as_json(),
        "threads": context.threads,
        "torch_device": context.torch_device,
    }
    if (
        architecture.factory is not None
    ):  # in the lineage, so that other code is another checkpoint, equal weights or not
        config["factory_digest"] = factory_digest(architecture)
    if isinstance(context.task.decoding, RegressionDecoding) and Path(recipe.model.weights).is_dir():
        config["number_on_scale"] = True  # a result from before a checkpoint's head was put on the scale is another one
    if recipe.finetune.cached_features:
        config["cached_features_version"] = CACHED_FEATURES_VERSION
    tools = {"torch": version("torch")}
    resume = context.store.resume_file(context.store.key(STAGE, inputs, config, CODE_VERSION, tools))

    def build(folder: Path) -> None:
        lineage = Lineage(parent=weights, stage=STAGE, config=config)
        _train(recipe, context, architecture, lineage, resume, folder, after_epoch)

    try:
        result = context.store.compute(STAGE, inputs, config, CODE_VERSION, build, tools)
    except TrialEndedError:
        resume.unlink(missing_ok=True)  # nobody goes on with it
        raise
    if result.reused and after_epoch is not None and not recipe.finetune.cached_features:  # which has no epochs
        _replay(result.path / QUALITIES_FILE, after_epoch)
    return result, Checkpoint(result.path)


def _replay(path: Path, after_epoch: AfterEpoch) -> None:
    """What the training of a reused result would have told `after_epoch`; nothing, where it was not kept."""
    from phonefit.pipeline.train import replay

    if path.is_file():
        replay(json.loads(path.read_text()), after_epoch)


def _settings(config: FinetuneConfig) -> dict[str, JsonValue]:
    """The settings for the key; at their defaults without those of `LATER`, so that older results stay valid."""
    defaults = {name: FinetuneConfig.model_fields[name].default for name in LATER}
    return {name: value for name, value in config.as_json().items() if name not in LATER or value != defaults[name]}


def quality_before(folder: Path, task: Task) -> float | None:
    """Quality on the validation side before training, of a fine-tuning's result; None where it was not kept."""
    path = folder / QUALITIES_FILE
    return merit_of(task.better, json.loads(path.read_text())[0]) if path.is_file() else None


def architecture_of(model: ModelConfig, task: Task, labels: Sequence[str], preprocess: Preprocess) -> Architecture:
    """What rebuilds the recipe's untrained network."""
    return Architecture(
        family=model.family,
        factory=model.factory,
        arguments=model.arguments,
        depth=model.depth,
        width=model.width,
        head=model.head,
        detector=None if model.family is None else task.detector,
        outputs=task.outputs(labels, preprocess),
        height=preprocess.height,
        width_pixels=preprocess.width,
    )


def weights_digest(model: ModelConfig) -> str:
    """Digest of what the network starts from: of the weights file, or of the word "random".

    Raises:
        FileFormatError: the file is missing.
        ModelError: the family has no pretrained weights, or their package is not installed.
    """
    if model.weights == "random":
        return digest_of("random")
    if model.weights != "pretrained":
        path = Path(model.weights)
        if path.is_dir():
            return Checkpoint(path).digest
        if not path.is_file():
            raise FileFormatError(
                f"model.weights: {path}: no such file; give the path of a .safetensors or weights-only .pt file, "
                "the folder of a checkpoint, pretrained or random"
            )
        return file_digest(path)
    spec = model_spec(model.family or "")
    if spec.pretrained is None:
        raise ModelError(f"{spec.name} has no pretrained weights; set model.weights to random or to a file")
    return file_digest(spec.pretrained.locate())


def factory_digest(architecture: Architecture) -> str:
    """Digest of the code behind a person's factory, after the network was built once: other code is another network.

    Raises:
        ModelError: the factory cannot be imported or fails.
    """
    assert architecture.factory is not None
    build_network(architecture)  # imports the modules, or says why that fails
    return code_digest(architecture.factory)


def _train(
    recipe: Recipe,
    context: Context,
    architecture: Architecture,
    lineage: Lineage,
    resume: Path,
    folder: Path,
    after_epoch: AfterEpoch | None,
) -> None:
    from phonefit.models.weights import initialise
    from phonefit.pipeline.determinism import deterministic
    from phonefit.pipeline.few_shot import train_head
    from phonefit.pipeline.train import train

    with deterministic(context, "initial weights"):
        network = build_network(architecture)
        loaded = initialise(network, architecture, recipe.model.weights, context.data.labels, context.task.decoding)
        check_network(network, architecture)
    logger.info(loaded)
    if recipe.finetune.cached_features:
        outcome = train_head(network, context, recipe.finetune, STAGE)
    else:
        outcome = train(
            network,
            context,
            recipe.finetune,
            title=STAGE,
            freeze_epochs=recipe.finetune.freeze_epochs,
            early_stop=recipe.finetune.early_stop,
            layer_decay=recipe.finetune.layer_decay,
            resume=resume,
            after_epoch=after_epoch,
        )
    qualities = [merit_of(context.task.better, epoch.quality) for epoch in outcome.history]
    write_atomically(folder / QUALITIES_FILE, json.dumps(qualities).encode())
    notes = [loaded, outcome.summary(context.task.quality)]
    info = CheckpointInfo(
        architecture=architecture,
        task=context.task.name,
        labels=context.data.labels,
        preprocess=context.data.preprocess,
        decoding=outcome.decoding,
        metrics=outcome.metrics,
        lineage=(lineage.model_copy(update={"config": {**lineage.config, "notes": notes}}),),
    )
    Checkpoint.save(folder, network, info)
