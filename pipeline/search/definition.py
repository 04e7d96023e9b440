"""What a study is about. Trials of one study can only be compared when nothing but the searched values differs."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue

from phonefit.models.factories import code_digest
from phonefit.models.tasks import task
from phonefit.models.tasks.options import OwnTaskOptions
from phonefit.models.tasks.task import Task
from phonefit.pipeline import convert, evaluate, finetune, measure, prepare
from phonefit.pipeline.compress import plan
from phonefit.pipeline.compress import stage as compress
from phonefit.pipeline.context import Progress
from phonefit.pipeline.convert import stage as convert_stage
from phonefit.pipeline.errors import ModelError, RecipeError
from phonefit.pipeline.recipe import ModelConfig, Recipe
from phonefit.pipeline.recipe_content import set_value, split_path
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.recipe_search import Range
from phonefit.pipeline.recipe_space import Conditional, Plain, axes_in_order
from phonefit.pipeline.search.space import points
from phonefit.pipeline.store import Store

# Parts of a recipe that change no figure of a trial.
_WITHOUT_EFFECT = ("schema_number", "name", "description", "threads", "search", "bench.reuse")
# Paths whose value decides which files a model is made from.
_ORIGINS = ("model", "model.family", "model.factory", "model.weights")


def definition_of(recipe: Recipe) -> dict[str, JsonValue]:
    """Space, objectives, and the rest of the recipe with the searched values blanked out."""
    rest = recipe.as_json()
    for path in recipe.search.space:
        set_value(rest, split_path(path), None)
    for path in _WITHOUT_EFFECT:
        *parents, key = path.split(".")
        holder = rest
        for parent in parents:
            holder = holder[parent]
        holder.pop(key, None)
    search = recipe.search.as_json()
    several: dict[str, JsonValue] = {"search.devices": search["devices"]} if len(recipe.bench.devices) > 1 else {}
    return {"search.space": search["space"], "search.objectives": search["objectives"], **several, **rest}


def surroundings_of(recipe: Recipe, runs: Path, progress: Progress) -> dict[str, JsonValue]:
    """What decides a trial's figures and is not in the recipe, by its name in words: contents of files, versions.

    Raises:
        DataError: the data cannot serve.
        ModelError: the recipe's one network cannot be built or has no weights.
        StoreError: the runs folder cannot be written.
    """
    asked = task(recipe.task)
    dataset = prepare.load_dataset(recipe.data, Store(runs), progress, asked.target)
    models = list(_models(recipe))
    found: dict[str, JsonValue] = {"digest of the pictures": dataset.digest}
    if isinstance(recipe.task, OwnTaskOptions):
        found[f"digest of the code of {recipe.task.factory}"] = code_digest(recipe.task.factory)
    for model in models:
        try:
            found |= _contents(model, recipe, asked, dataset.labels)
        except ModelError:  # one choice of several: its trials fail, and say why
            if len(models) == 1:
                raise
    found |= {f"code version of {stage}": number for stage, number in code_versions().items()}
    return found | {f"version of {tool}": number for tool, number in tool_versions().items()}


def code_versions() -> dict[str, int]:
    """Stage -> the number that it raises when the same input gives another result."""
    return {
        "prepare": prepare.CODE_VERSION,
        "finetune": finetune.CODE_VERSION,
        **compress.CODE_VERSIONS,
        **plan.CODE_VERSIONS,
        "convert": convert_stage.CODE_VERSION,
        "parity": convert_stage.PARITY_CODE_VERSION,
        "evaluate": evaluate.CODE_VERSION,
        "measure": measure.CODE_VERSION,
    }


def tool_versions() -> dict[str, str]:
    """Package -> version, of those that shape the result of a stage; imports none of them."""
    packages = {"pillow", "torch", *itertools.chain(*compress.TOOLS.values(), *convert.TOOLS.values())}
    return {package: version(package) for package in sorted(packages)}


def _models(recipe: Recipe) -> Iterator[ModelConfig]:
    """The models that the space can give, as far as they differ in the files that they are made from."""
    axes = {path: axis for path, axis in axes_in_order(recipe).items() if path.split(".")[0] == "model"}
    for point in points({path: _narrowed(path, axis) for path, axis in axes.items()}):
        try:
            yield apply_overrides(recipe, point).model
        except RecipeError:  # choices that contradict each other: no trial has them
            continue


def _narrowed(path: str, axis: Plain | Conditional) -> Plain | Conditional:
    """The axis itself where it decides which files a model is made from, else its first value."""
    if isinstance(axis, Conditional):
        narrowed = _narrowed(path, axis.axis)
        assert not isinstance(narrowed, Conditional)  # what it was given is not
        return replace(axis, axis=narrowed)
    if isinstance(axis, Range):
        return (int(axis.low) if axis.integer else axis.low,)
    return axis if path in _ORIGINS else axis[:1]


def _contents(model: ModelConfig, recipe: Recipe, asked: Task, labels: Sequence[str]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    if model.weights != "random":
        name = model.weights if model.family is None else f"{model.family}, {model.weights}"
        found[f"digest of the weights of {name}"] = finetune.weights_digest(model)
    if model.factory is not None:
        preprocess = prepare.resolve_preprocess(finetune.base_preprocess(model), recipe.data.input)
        architecture = finetune.architecture_of(model, asked, labels, preprocess)
        found[f"digest of the code of {model.factory}"] = finetune.factory_digest(architecture)
    return found


def without_defaults(definition: Mapping[str, JsonValue], recipe: Recipe) -> dict[str, JsonValue]:
    """A definition of this recipe without the fields that have their default value."""
    given = recipe.model_dump(mode="json", exclude_defaults=True)
    return {**{key: value for key, value in definition.items() if key not in Recipe.model_fields}, **given}


def differences(
    study: Mapping[str, JsonValue],
    recipe: Mapping[str, JsonValue],
    given: Mapping[str, JsonValue] | None = None,
    place: str = "",
) -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Dotted path, the study's value, the recipe's value, for everything that differs.

    Args:
        given: the recipe `without_defaults`: a field that the study lacks and that has its default value does not
            differ. The study is then of a phonefit that did not have the field.
    """
    given = recipe if given is None else given
    for key in dict.fromkeys([*study, *recipe]):
        path = f"{place}.{key}" if place else key
        old, new, inside = study.get(key), recipe.get(key), given.get(key, {})
        if key not in study and key not in given:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and isinstance(inside, dict):
            yield from differences(old, new, inside, path)
        elif not _alike_lists(old, new, inside) and old != new:
            yield path, old, new


def _alike_lists(old: JsonValue, new: JsonValue, given: JsonValue) -> bool:
    """Whether two lists of steps do not differ."""
    if not (isinstance(old, list) and isinstance(new, list) and isinstance(given, list)):
        return False
    return len(old) == len(new) == len(given) and all(
        isinstance(one, dict)
        and isinstance(other, dict)
        and isinstance(inside, dict)
        and not any(differences(one, other, inside))
        for one, other, inside in zip(old, new, given, strict=True)
    )
