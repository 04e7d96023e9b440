"""Checks of a recipe that need no work: what it refers to, what a runtime can do, the search space.

Imports neither torch nor optuna.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.devices import kind_of
from phonefit.models.artifact import Runtime
from phonefit.models.errors import UnknownNameError
from phonefit.models.registry import MODELS
from phonefit.models.tasks import TASKS
from phonefit.pipeline.recipe import DataConfig, ModelConfig, Recipe
from phonefit.pipeline.recipe_content import (
    Parts,
    Problem,
    parse_content,
    problems_error,
    set_value,
    shown,
    split_path,
    suggest,
)
from phonefit.pipeline.recipe_search import Range
from phonefit.pipeline.recipe_steps import QuantiseConfig

RUNTIME_SCHEMES: Mapping[Runtime, frozenset[str]] = {
    "executorch": frozenset({"int8_static"}),
    "tflite": frozenset({"int8_static"}),
    "onnx": frozenset({"int8_static"}),
}
"""Which quantisation schemes each runtime's converter can realise."""

NOT_SEARCHED: Mapping[str, str] = {
    "name": "one study belongs to one name",
    "schema_number": "it belongs to the file format",
    "description": "it changes nothing",
    "task": "qualities of different tasks cannot be compared",
    "data": "trials on different pictures cannot be compared; only data.input can be searched",
    "budget": "trials under different limits cannot be compared",
    "search": "a search cannot change itself",
    "bench.device": "figures of different devices cannot be compared",
    "bench.reuse": "it changes nothing",
}
"""Paths that a search may not vary, with the reason. Inside data, data.input may be searched."""


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe refers to: names, files, sizes, the search space.

    Raises:
        RecipeError: with every problem.
    """
    problems = [*_references(recipe), *_space_problems(recipe, broken=frozenset())]
    if problems:
        raise problems_error(f"recipe {recipe.name}", problems)


def validated(content: Mapping[str, JsonValue], origin: str, earlier: Sequence[Problem] = ()) -> Recipe:
    """The recipe of this content, with every check that needs no work.

    Args:
        origin: what to call it in the error.
        earlier: problems found before, to report along.

    Raises:
        RecipeError: with every problem.
    """
    recipe, problems = parse_content(content)
    problems = [*earlier, *problems]
    if recipe is not None:
        broken = frozenset(problem.parts[0] for problem in problems if problem.parts)
        problems += [*_references(recipe), *_space_problems(recipe, broken)]
    if problems or recipe is None:
        raise problems_error(origin, problems)
    return recipe


def apply_overrides(recipe: Recipe, values: Mapping[str, JsonValue]) -> Recipe:
    """The recipe with other values at these dotted paths. A whole part is set before what is inside it.

    Raises:
        RecipeError: with every path that does not exist and every value that does not fit.
    """
    content = recipe.as_json()
    pairs = [(split_path(path), value) for path, value in values.items()]
    outer_first = sorted(pairs, key=lambda pair: len(pair[0]))
    problems = [problem for parts, value in outer_first if (problem := set_value(content, parts, value))]
    parsed, more = parse_content(content)
    if problems or more or parsed is None:
        raise problems_error(f"recipe {recipe.name}", [*problems, *more])
    return parsed


def _references(recipe: Recipe) -> Iterator[Problem]:
    """Names, files and sizes that the recipe refers to."""
    if recipe.task not in TASKS:
        yield Problem(("task",), f"unknown task {recipe.task!r}{suggest(recipe.task, TASKS)}")
    try:
        kind_of(recipe.bench.device)
    except UnknownNameError as error:
        yield Problem(("bench", "device"), str(error))
    yield from _model_references(recipe.model)
    yield from _data_references(recipe.data)
    yield from _size_problems(recipe)
    for index, step in enumerate(recipe.compress):
        if isinstance(step, QuantiseConfig):
            for runtime in recipe.convert.runtimes:
                if step.scheme not in RUNTIME_SCHEMES[runtime]:
                    able = [name for name, schemes in RUNTIME_SCHEMES.items() if step.scheme in schemes]
                    text = f"{runtime} cannot run {step.scheme!r}; runtimes that can: {', '.join(able) or 'none'}"
                    yield Problem(("compress", index, "scheme"), text)


def _model_references(model: ModelConfig) -> Iterator[Problem]:
    if model.family is not None and model.family not in MODELS:
        yield Problem(("model", "family"), f"unknown family {model.family!r}{suggest(model.family, MODELS)}")
    if model.weights == "pretrained":
        spec = MODELS.get(model.family or "")
        if spec is not None and spec.pretrained is None:
            having = ", ".join(name for name, other in MODELS.items() if other.pretrained)
            text = f"no packaged weights for {model.family}; use random or a file. Families with weights: {having}"
            yield Problem(("model", "weights"), text)
    elif model.weights != "random" and not Path(model.weights).is_file():
        text = f"no file {model.weights!r} in {Path.cwd()}; give pretrained, random or the path of a weights file"
        yield Problem(("model", "weights"), text)


def _data_references(data: DataConfig) -> Iterator[Problem]:
    if data.path is not None and not data.path.exists():
        yield Problem(("data", "path"), f"{str(data.path)!r} does not exist in {Path.cwd()}")
    elif data.path is not None and data.path.is_dir() != (data.source == "image_folder"):
        wanted = "folder with a folder of pictures a class" if data.source == "image_folder" else "file"
        yield Problem(("data", "path"), f"{str(data.path)!r}: source {data.source} needs a {wanted}")
    if data.labels_path is not None and not data.labels_path.is_file():
        yield Problem(("data", "labels_path"), f"no file {str(data.labels_path)!r} in {Path.cwd()}")


def _size_problems(recipe: Recipe) -> Iterator[Problem]:
    spec = MODELS.get(recipe.model.family or "")
    if spec is None:
        return
    for side in ("height", "width"):
        given = getattr(recipe.data.input, side)
        if given is not None and given < spec.minimum_size:
            text = f"{given} is too small: {spec.name} takes at least {spec.minimum_size} pixels"
            yield Problem(("data", "input", side), text)


def _space_problems(recipe: Recipe, broken: frozenset[str | int]) -> Iterator[Problem]:
    """Every choice and bound of the search space, set alone into the recipe, must give a valid recipe.

    Args:
        broken: top-level parts that have problems of their own; paths into them are not judged.
    """
    if recipe.search.after_run and not recipe.search.space and "search" not in broken:
        text = "there is nothing to search: search.space is empty; say what to vary, or set after_run to false"
        yield Problem(("search", "after_run"), text)
    usual = {str(problem) for problem in _references(recipe)}
    for path, axis in recipe.search.space.items():
        place: Parts = ("search", "space", path)
        if path.split(".")[0] in broken:
            continue
        if reason := _not_searched(path):
            yield Problem(place, f"cannot be searched: {reason}")
            continue
        for value in _probes(axis) if isinstance(axis, Range) else axis:
            content = recipe.as_json()
            if missing := set_value(content, split_path(path), value):
                yield Problem(place, missing.text)
                break
            changed, problems = parse_content(content)
            if changed is not None and not problems:
                problems = [problem for problem in _references(changed) if str(problem) not in usual]
            if problems:
                yield Problem(place, f"{shown(value)} gives {'; '.join(str(problem) for problem in problems)}")


def _not_searched(path: str) -> str | None:
    if path == "data.input" or path.startswith("data.input."):
        return None
    reasons = [reason for start, reason in NOT_SEARCHED.items() if path == start or path.startswith(f"{start}.")]
    return reasons[0] if reasons else None


def _probes(axis: Range) -> Iterator[float | int]:
    """The bounds, and an odd value between them where fractions can come up."""
    if axis.integer:
        yield from (int(axis.low), int(axis.high))
        return
    yield from (axis.low, axis.high)
    if axis.step is None and axis.low < axis.high:
        yield axis.low + (axis.high - axis.low) * 0.381966
