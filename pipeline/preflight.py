"""Checks that need the device or the network, before the first long stage: what would otherwise fail after training."""

from collections.abc import Iterator, Mapping

from phonefit.device_bench.device import Device, DeviceInfo
from phonefit.models.layers import unknown_layers
from phonefit.models.registry import build_network
from phonefit.pipeline.compress.student import architecture_of_student
from phonefit.pipeline.context import Context
from phonefit.pipeline.finetune import architecture_of
from phonefit.pipeline.recipe import BenchConfig, Recipe
from phonefit.pipeline.recipe_content import Problem, problems_error
from phonefit.pipeline.recipe_steps import DistilConfig, QuantiseConfig

FACTORS = ("0", "1", "2", "3")  # names of what a decomposed layer is replaced by, inside it


def preflight(recipe: Recipe, context: Context, *devices: Device) -> None:
    """Check the recipe against its devices and its network. Builds the network only where a step names layers.

    Raises:
        RecipeError: with every problem.
        DeviceError: a device cannot be reached.
        ModelError: the network cannot be built.
    """
    found = dict(zip(recipe.bench.devices, (device.info() for device in devices), strict=True))
    problems = [*_torch_problems(recipe), *_device_problems(recipe.bench, found), *_layer_problems(recipe, context)]
    if problems:
        raise problems_error(f"recipe {recipe.name}", problems)


def _torch_problems(recipe: Recipe) -> Iterator[Problem]:
    """A device that this torch cannot compute on."""
    if recipe.train_on == "cpu":
        return
    import torch

    backend = torch.cuda if recipe.train_on == "cuda" else torch.backends.mps
    if not backend.is_available():
        text = f"torch {torch.__version__} finds no {recipe.train_on} device here; install the build of torch for it"
        yield Problem(("train_on",), f"{text}, or say cpu")


def _device_problems(config: BenchConfig, devices: Mapping[str, DeviceInfo]) -> Iterator[Problem]:
    """Too many threads for a device, or one device under two names."""
    names: dict[str, str] = {}
    for name, device in devices.items():
        cores = int(device.details.get("usable_cores", device.cores))
        if config.threads > cores:
            text = f"{config.threads} is too many: {name} ({device.name}) has {cores} core(s) for them"
            yield Problem(("bench", "threads"), text)
        if (same := names.setdefault(device.model_dump_json(), name)) != name:
            yield Problem(("bench", "device"), f"{same} and {name} are one device; name it once")


def _layer_problems(recipe: Recipe, context: Context) -> Iterator[Problem]:
    """Names in `keep` and `float_layers` that the network does not have."""
    named = [(index, *_layers_of(recipe, index)) for index in range(len(recipe.steps))]
    if not any(names for _, _, names in named):
        return
    from torch import nn

    architecture = architecture_of(recipe.model, context.task, context.data.labels, context.data.preprocess)
    first = recipe.steps[0]
    if isinstance(first, DistilConfig) and first.student is not None:  # the steps after it work on the student
        architecture = architecture_of_student(first.student, architecture)
    network = build_network(architecture)
    layers = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    decomposed = False
    for index, option, names in named:
        # an earlier decomposition may have made such a layer; whether it did shows only then
        factors = {name for name in names if decomposed and _is_factor(name, layers)}
        if problem := unknown_layers(network, set(names) - factors):
            yield Problem(("compress", index, option), problem)
        decomposed = decomposed or recipe.steps[index].technique == "decompose"


def _layers_of(recipe: Recipe, index: int) -> tuple[str, tuple[str, ...]]:
    """Option in which a step names layers, and the names."""
    step = recipe.steps[index]
    if isinstance(step, DistilConfig):
        return "", ()
    return ("float_layers", step.float_layers) if isinstance(step, QuantiseConfig) else ("keep", step.keep)


def _is_factor(name: str, layers: set[str]) -> bool:
    parent, _, own = name.rpartition(".")
    return parent in layers and own in FACTORS
