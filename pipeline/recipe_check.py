"""Checks of a recipe that need no work: what it refers to, what a runtime can do, the search space.

Imports neither torch nor optuna.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.devices import DEVICES, DeviceKind, kind_of
from phonefit.models.artifact import Runtime
from phonefit.models.errors import PhonefitError
from phonefit.models.quantisation import Granularity, Scheme
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
from phonefit.pipeline.recipe_steps import DistilConfig, PruneConfig, QuantiseConfig

_SCALES: frozenset[Granularity] = frozenset({"per_channel", "per_tensor"})
_CHANNELS: frozenset[Granularity] = frozenset({"per_channel"})
_BLOCKS: frozenset[Granularity] = frozenset({"per_block"})

RUNTIME_SCHEMES: Mapping[Runtime, Mapping[Scheme, frozenset[Granularity]]] = {
    # XNNPACK in ExecuTorch: no kernels with integer weights and float activations, dynamic ones per channel only
    "executorch": {"int8_static": _SCALES, "int8_dynamic": _CHANNELS, "int4_weights": _CHANNELS, "fp16": _SCALES},
    "tflite": {
        "int8_static": _SCALES,
        "int8_dynamic": _SCALES,
        "int8_weights": _SCALES,
        "int4_weights": _CHANNELS | _BLOCKS,
        "fp16": _SCALES,
    },
    # ONNX Runtime: its int4 operator, MatMulNBits, has scales for blocks of inputs only
    "onnx": {
        "int8_static": _SCALES,
        "int8_dynamic": _SCALES,
        "int8_weights": _SCALES,
        "int4_weights": _BLOCKS,
        "fp16": _SCALES,
    },
}
"""Which quantisation schemes each runtime runs, with the granularities; float16 has no scales, they change nothing.

Each was tried by running files on the runtime; docs/quantisation.md says what does not work and why.
"""

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
    "bench.energy": "it changes no file",
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
        device, options = kind_of(recipe.bench.device)
        if options:
            device.open(options)
    except PhonefitError as error:
        yield Problem(("bench", "device"), str(error))
    else:
        yield from _objective_problems(recipe, device)
        yield from _target_problems(recipe, device)
    yield from _model_references(recipe.model)
    yield from _data_references(recipe.data)
    yield from _size_problems(recipe)
    yield from _student_problems(recipe)
    for index, step in enumerate(recipe.compress):
        if isinstance(step, QuantiseConfig):
            for runtime in recipe.convert.runtimes:
                yield from _scheme_problems(index, step, runtime)


def _scheme_problems(index: int, step: QuantiseConfig, runtime: Runtime) -> Iterator[Problem]:
    """Combinations of scheme, granularity and exceptions that a runtime cannot run."""
    schemes = RUNTIME_SCHEMES[runtime]
    if step.scheme not in schemes:
        able = [name for name, other in RUNTIME_SCHEMES.items() if step.scheme in other]
        text = (
            f"{runtime} cannot run {step.scheme!r}, it can run {', '.join(schemes) or 'none'}; "
            f"runtimes that can: {', '.join(able) or 'none'}"
        )
        yield Problem(("compress", index, "scheme"), text)
    elif step.granularity not in schemes[step.scheme]:
        able = [name for name, other in RUNTIME_SCHEMES.items() if step.granularity in other.get(step.scheme, ())]
        text = (
            f"{runtime} cannot run {step.scheme} {step.granularity!r}, it can run "
            f"{', '.join(sorted(schemes[step.scheme]))}; runtimes that can: {', '.join(able) or 'none'}"
        )
        yield Problem(("compress", index, "granularity"), text)
    if runtime == "executorch" and step.scheme == "fp16" and step.float_layers:
        text = "executorch computes the whole of a float16 file in float16; leave float_layers empty, or leave it out"
        yield Problem(("compress", index, "float_layers"), text)


def _target_problems(recipe: Recipe, device: DeviceKind) -> Iterator[Problem]:
    """Targets of pruning that the device has no figure for."""
    for index, step in enumerate(recipe.compress):
        if isinstance(step, PruneConfig) and step.instructions is not None and not device.counts:
            counting = ", ".join(name for name, kind in DEVICES.items() if kind.counts)
            text = (
                f"bench.device {recipe.bench.device} does not count instructions; devices that do: {counting}. "
                "Elsewhere use latency_ms or multiply_adds"
            )
            yield Problem(("compress", index, "instructions"), text)


def _objective_problems(recipe: Recipe, device: DeviceKind) -> Iterator[Problem]:
    """Objectives and limits that the device has no figure for."""
    if "instructions" in recipe.search.objectives and not device.counts:
        counting = ", ".join(name for name, kind in DEVICES.items() if kind.counts)
        text = f"bench.device {recipe.bench.device} does not count instructions; devices that do: {counting}"
        yield Problem(("search", "objectives"), text)
    if not recipe.bench.energy and not device.counts:
        text = "needs bench.energy=true, on a phone that tells its power; or a device that counts, which models it"
        if recipe.budget.energy_uj is not None:
            yield Problem(("budget", "energy_uj"), text)
        if "energy_uj" in recipe.search.objectives:
            yield Problem(("search", "objectives"), f"energy_uj {text}")


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


def _student_problems(recipe: Recipe) -> Iterator[Problem]:
    """New networks of a distil step that cannot be built, or that would undo what comes before."""
    for index, step in enumerate(recipe.compress):
        if not isinstance(step, DistilConfig) or step.student is None:
            continue
        student, place = step.student, ("compress", index, "student")
        if index > 0:
            done = ", ".join(earlier.technique for earlier in recipe.compress[:index])
            yield Problem(place, f"a new network would undo {done}; put this step before them")
        if (spec := MODELS.get(student.family)) is None:
            yield Problem((*place, "family"), f"unknown family {student.family!r}{suggest(student.family, MODELS)}")
            continue
        if student.weights == "pretrained" and spec.pretrained is None:
            having = ", ".join(name for name, other in MODELS.items() if other.pretrained)
            text = f"no packaged weights for {student.family}; use random. Families with weights: {having}"
            yield Problem((*place, "weights"), text)
        for side in ("height", "width"):
            usual = MODELS[recipe.model.family].preprocess if recipe.model.family in MODELS else None
            size = getattr(recipe.data.input, side) or (getattr(usual, side) if usual else None)
            if size is not None and size < spec.minimum_size:
                text = f"{spec.name} takes at least {spec.minimum_size} pixels; the recipe's input has {side} {size}"
                yield Problem((*place, "family"), text)


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
