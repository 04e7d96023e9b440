"""The fine-tuning stage: from a recipe's model and weights to a checkpoint that knows the person's labels."""

import logging
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from pydantic import JsonValue

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.errors import FileFormatError, ModelError
from phonefit.models.record import digest_of, file_digest
from phonefit.models.registry import build_network, check_network, model_spec
from phonefit.models.spec import Architecture, Preprocess
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe import ModelConfig, Recipe
from phonefit.pipeline.store import StageResult

STAGE = "finetune"
CODE_VERSION = 2
# For a person's own factory: 224 pixels, the mean and deviation of ImageNet's pixels.
FACTORY_PREPROCESS = Preprocess(height=224, width=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
logger = logging.getLogger(__name__)


def base_preprocess(model: ModelConfig) -> Preprocess:
    """The model's usual preprocessing, before the recipe's `data.input` changes it.

    Raises:
        UnknownNameError: the family is not registered.
    """
    return FACTORY_PREPROCESS if model.family is None else model_spec(model.family).preprocess


def finetune(recipe: Recipe, context: Context) -> tuple[StageResult, Checkpoint]:
    """Build the recipe's network, load its weights, train it; a result that is in the store is reused.

    An interrupted training goes on after its last complete epoch.

    Raises:
        ModelError: the network cannot be built as asked, or the weights do not fit it.
        FileFormatError: the weights are not a safetensors or weights-only file.
        TrainingError: the training diverges.
        StoreError: the run folder cannot be written.
    """
    preprocess = context.data.preprocess
    architecture = architecture_of(recipe.model, context.task.outputs(context.data.labels), preprocess)
    weights = weights_digest(recipe.model)
    inputs = {"data": context.data.digest, "weights": weights}
    config: dict[str, JsonValue] = {
        "architecture": architecture.as_json(),
        "finetune": recipe.finetune.as_json(),
        "seed": context.seed,
        "task": context.task.name,
        "labels": list(context.data.labels),
        "preprocess": preprocess.as_json(),
        "threads": context.threads,
        "torch_device": context.torch_device,
    }
    if (
        architecture.factory is not None
    ):  # in the lineage, so that other code is another checkpoint, equal weights or not
        config["factory_digest"] = factory_digest(architecture)
    tools = {"torch": version("torch")}
    resume = context.store.resume_file(context.store.key(STAGE, inputs, config, CODE_VERSION, tools))

    def build(folder: Path) -> None:
        _train(recipe, context, architecture, Lineage(parent=weights, stage=STAGE, config=config), resume, folder)

    result = context.store.compute(STAGE, inputs, config, CODE_VERSION, build, tools)
    return result, Checkpoint(result.path)


def architecture_of(model: ModelConfig, outputs: int, preprocess: Preprocess) -> Architecture:
    """What rebuilds the recipe's untrained network."""
    return Architecture(
        family=model.family,
        factory=model.factory,
        arguments=model.arguments,
        depth=model.depth,
        width=model.width,
        head=model.head,
        outputs=outputs,
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
        if not path.is_file():
            raise FileFormatError(
                f"model.weights: {path}: no such file; give the path of a .safetensors or weights-only .pt file, "
                "pretrained or random"
            )
        return file_digest(path)
    spec = model_spec(model.family or "")
    if spec.pretrained is None:
        raise ModelError(f"{spec.name} has no pretrained weights; set model.weights to random or to a file")
    return file_digest(spec.pretrained.locate())


def factory_digest(architecture: Architecture) -> str:
    """Digest of the code behind a person's factory: other code is another network.

    It covers the modules that are loaded from the folder of the factory's top-level package or module, after the
    network was built once. Installed packages count by their versions, not here.

    Raises:
        ModelError: the factory cannot be imported or fails.
    """
    assert architecture.factory is not None
    build_network(architecture)  # imports the modules, or says why that fails
    name = architecture.factory.partition(":")[0]
    own = _source(sys.modules[name])
    if own is None:
        return digest_of({})  # made in memory: there is no file to follow
    levels = name.count(".") + (own.stem == "__init__")
    root = own.parents[min(levels, len(own.parents) - 1)]
    package = name.partition(".")[0]
    digests = {own.relative_to(root).as_posix(): file_digest(own)}
    for other, module in list(sys.modules.items()):
        top = other.partition(".")[0]
        source = _source(module)
        if source is None or not source.is_relative_to(root) or top in ("__main__", "phonefit"):
            continue  # a script that only starts phonefit is not part of the network
        if top == package or not _is_installed(source):
            digests[source.relative_to(root).as_posix()] = file_digest(source)
    return digest_of(digests)


def _source(module: ModuleType | None) -> Path | None:
    """The file that a module was loaded from. Read past `getattr`, which makes lazy modules load more."""
    file = module.__dict__.get("__file__") if isinstance(module, ModuleType) else None
    path = Path(file).absolute() if file else None
    return path if path is not None and path.is_file() else None


def _is_installed(source: Path) -> bool:
    """Whether a module belongs to Python or to an installed package."""
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return "site-packages" in source.parts or any(source.is_relative_to(library) for library in libraries)


def _train(
    recipe: Recipe, context: Context, architecture: Architecture, lineage: Lineage, resume: Path, folder: Path
) -> None:
    from phonefit.models.weights import initialise
    from phonefit.pipeline.determinism import deterministic
    from phonefit.pipeline.train import train

    with deterministic(context, "initial weights"):
        network = build_network(architecture)
        loaded = initialise(network, architecture, recipe.model.weights)
        check_network(network, architecture)
    logger.info(loaded)
    outcome = train(
        network,
        context,
        recipe.finetune,
        title=STAGE,
        freeze_epochs=recipe.finetune.freeze_epochs,
        early_stop=recipe.finetune.early_stop,
        resume=resume,
    )
    notes = [loaded, outcome.summary(context.task.quality)]
    info = CheckpointInfo(
        architecture=architecture,
        task=context.task.name,
        labels=context.data.labels,
        preprocess=context.data.preprocess,
        metrics=outcome.metrics,
        lineage=(lineage.model_copy(update={"config": {**lineage.config, "notes": notes}}),),
    )
    Checkpoint.save(folder, network, info)
