"""Checks of a recipe that need no work: what it refers to, what a runtime can do, the search space.

Imports neither torch nor optuna.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.devices import DEVICES, DeviceKind, kind_of
from phonefit.models.artifact import Runtime
from phonefit.models.checkpoint import INFO_FILE
from phonefit.models.data import target_problem
from phonefit.models.errors import PhonefitError
from phonefit.models.quantisation import Granularity, Scheme
from phonefit.models.registry import MODELS
from phonefit.models.tasks import TASKS, task
from phonefit.models.tasks.options import DetectionOptions, OwnTaskOptions, StyleOptions, TaskOptions
from phonefit.pipeline.recipe import DataConfig, ModelConfig, Recipe
from phonefit.pipeline.recipe_auto import AutoConfig, BudgetConfig
from phonefit.pipeline.recipe_content import (
    Parts,
    Problem,
    parse_content,
    problems_error,
    set_value,
    split_path,
    suggest,
)
from phonefit.pipeline.recipe_space import space_problems
from phonefit.pipeline.recipe_steps import DistilConfig, PruneConfig, QuantiseConfig

_SCALES: frozenset[Granularity] = frozenset({"per_channel", "per_tensor"})
_CHANNELS: frozenset[Granularity] = frozenset({"per_channel"})
_BLOCKS: frozenset[Granularity] = frozenset({"per_block"})

FOLDERS = {"image_folder": "folder with a folder of pictures a class", "coco": "folder of pictures"}
"""Sources whose path is a folder, in words."""

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


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe refers to: names, files, sizes, the search space.

    Raises:
        RecipeError: with every problem.
    """
    problems = [*_references(recipe), *space_problems(recipe, frozenset(), _references)]
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
        problems += [*_references(recipe), *space_problems(recipe, broken, _references)]
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
    problems = []
    for parts, value in sorted(pairs, key=lambda pair: len(pair[0])):
        if any(parts[: len(other)] == other for other, _ in pairs if len(other) < len(parts)):
            content = _filled_out(content)  # what this path leads to may be a default of a part that was just set
        if problem := set_value(content, parts, value):
            problems.append(problem)
    parsed, more = parse_content(content)
    if problems or more or parsed is None:
        raise problems_error(f"recipe {recipe.name}", [*problems, *more])
    return parsed


def _filled_out(content: dict[str, JsonValue]) -> dict[str, JsonValue]:
    parsed, problems = parse_content(content)
    return content if problems or parsed is None else parsed.as_json()


def check_point(recipe: Recipe) -> None:
    """Check what a point of a search refers to: choices that are valid each by itself can exclude each other.

    Raises:
        RecipeError: with every problem.
    """
    if problems := list(_references(recipe)):
        raise problems_error("this point of the space cannot run", problems)


def _references(recipe: Recipe) -> Iterator[Problem]:
    """Names, files and sizes that the recipe refers to."""
    yield from _task_problems(recipe)
    yield from _device_problems(recipe)
    yield from _model_references(recipe.model)
    yield from _data_references(recipe.data)
    yield from _size_problems(recipe)
    yield from _student_problems(recipe)
    if isinstance(recipe.compress, AutoConfig):
        yield from _plan_problems(recipe.compress, recipe)
    for index, step in enumerate(recipe.steps):
        if isinstance(step, QuantiseConfig):
            for runtime in recipe.convert.runtimes:
                yield from _scheme_problems(index, step, runtime)


def _task_problems(recipe: Recipe) -> Iterator[Problem]:
    """A task that does not exist, or whose targets the data source cannot give. A person's own is not imported here."""
    if isinstance(recipe.task, str) and recipe.task not in TASKS:
        yield Problem(("task",), f"unknown task {recipe.task!r}{suggest(recipe.task, TASKS)}")
    elif not isinstance(recipe.task, OwnTaskOptions) and (
        problem := target_problem(recipe.data.source, task(recipe.task).target)
    ):
        yield Problem(("data", "source"), problem)
    if isinstance(recipe.task, StyleOptions):
        for name, path in recipe.task.files.items():
            if not path.is_file():
                yield Problem(("task", name), f"no file {str(path)!r} in {Path.cwd()}")
    if isinstance(recipe.task, DetectionOptions):
        without = [runtime for runtime in recipe.convert.runtimes if runtime != "onnx"]
        if recipe.task.nms == "inside" and without:
            text = f"{', '.join(without)} has no operator for it; say outside, or convert: {{runtimes: [onnx]}}"
            yield Problem(("task", "nms"), text)
    if recipe.data.split.by == "class" and _is_known(recipe.task) and task(recipe.task).split_by != "class":
        text = "on each side the task needs the classes that it learns; leave it out, or say picture"
        yield Problem(("data", "split", "by"), text)
    if reason := _unbalanced(recipe.task):
        steps: list[tuple[Parts, object]] = [(("finetune",), recipe.finetune)]
        steps += [(("compress", index), step) for index, step in enumerate(recipe.steps)]
        for place, step in steps:
            if getattr(step, "class_weights", None) == "balanced":
                yield Problem((*place, "class_weights"), f"{reason}; leave it out")


def _is_known(asked: str | TaskOptions) -> bool:
    """Whether it is one of our tasks: a person's own is not imported here."""
    return asked in TASKS if isinstance(asked, str) else not isinstance(asked, OwnTaskOptions)


def _unbalanced(asked: str | TaskOptions) -> str | None:
    """Why a task knows no class weights."""
    name = asked if isinstance(asked, str) else getattr(asked, "name", "")
    reasons = {
        "style": "pictures have no classes to balance",
        "detection": "every point has a score for each label, so there is nothing to balance",
        "regression": "numbers have no classes to balance",
        "embedding": "identities are not balanced by weights: pairs count the same whoever is in them",
    }
    return reasons.get(name)


def common_granularity(scheme: Scheme, runtimes: Sequence[Runtime]) -> Granularity | None:
    """The finest granularity with which all of these runtimes run a scheme; None where there is none."""
    able = [RUNTIME_SCHEMES[runtime].get(scheme, frozenset()) for runtime in runtimes]
    finest_first: tuple[Granularity, ...] = ("per_block", "per_channel", "per_tensor")
    return next((one for one in finest_first if all(one in granularities for granularities in able)), None)


def _plan_problems(plan: AutoConfig, recipe: Recipe) -> Iterator[Problem]:
    """A plan without a limit to meet, or with nothing that it could do."""
    place: Parts = ("compress",)
    if not recipe.limits.given:
        names = ", ".join(name for name in BudgetConfig.model_fields if name != "ram_share")
        text = f"there is nothing to plan for: give a limit here or in the recipe's budget; limits: {names}"
        yield Problem((*place, "budget"), text)
    runtimes = recipe.convert.runtimes
    for scheme in plan.schemes:
        if common_granularity(scheme, runtimes) is None:
            unable = [name for name in runtimes if scheme not in RUNTIME_SCHEMES[name]]
            why = f"{', '.join(unable)} cannot run it" if unable else f"{', '.join(runtimes)} share no granularity"
            yield Problem((*place, "schemes"), f"{scheme}: {why}; leave it out, or change convert.runtimes")
    if plan.schemes and "quantise" not in plan.techniques:
        yield Problem((*place, "schemes"), "quantise is not among the techniques")


def _device_problems(recipe: Recipe) -> Iterator[Problem]:
    """Devices that do not exist, and what is asked of devices that have no figure for it."""
    kinds: dict[str, DeviceKind] = {}
    for name in recipe.bench.devices:
        try:
            kinds[name], options = kind_of(name)
            if options:
                kinds[name].open(options)
        except PhonefitError as error:
            yield Problem(("bench", "device"), str(error))
            return
    yield from _weight_problems(recipe)
    yield from _objective_problems(recipe, kinds)
    yield from _target_problems(recipe, kinds)
    yield from _counted_limits(recipe, kinds)


def _weight_problems(recipe: Recipe) -> Iterator[Problem]:
    """Weights of devices that are not measured on."""
    weights = recipe.search.devices
    for name in weights if weights != "worst" else ():
        if name not in recipe.bench.devices:
            text = f"{name!r} is not in bench.device{suggest(name, recipe.bench.devices)}"
            yield Problem(("search", "devices"), text)


def _not_counting(kinds: Mapping[str, DeviceKind], advice: str = "") -> str:
    """Why there are no instructions, where that is so. One device that counts is enough: they are the same on all."""
    if any(kind.counts for kind in kinds.values()):
        return ""
    counting = ", ".join(name for name, kind in DEVICES.items() if kind.counts)
    does = "does" if len(kinds) == 1 else "do"
    return f"bench.device {', '.join(kinds)} {does} not count instructions; devices that do: {counting}{advice}"


def _counted_limits(recipe: Recipe, kinds: Mapping[str, DeviceKind]) -> Iterator[Problem]:
    """Limits of instructions where no device counts."""
    planned = recipe.compress.budget if isinstance(recipe.compress, AutoConfig) else None
    for place, budget in ((("budget",), recipe.budget), (("compress", "budget"), planned)):
        text = _not_counting(kinds, ". Elsewhere use latency_p90_ms")
        if text and budget is not None and budget.instructions is not None:
            yield Problem((*place, "instructions"), text)


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


def _target_problems(recipe: Recipe, kinds: Mapping[str, DeviceKind]) -> Iterator[Problem]:
    """Targets of pruning that a device has no figure for: the slowest device is asked, whichever it is."""
    silent = {name: kind for name, kind in kinds.items() if not kind.counts}
    for index, step in enumerate(recipe.steps):
        if silent and isinstance(step, PruneConfig) and step.instructions is not None:
            text = _not_counting(silent, ". Elsewhere use latency_ms or multiply_adds")
            yield Problem(("compress", index, "instructions"), text)


def _objective_problems(recipe: Recipe, kinds: Mapping[str, DeviceKind]) -> Iterator[Problem]:
    """Objectives and limits that a device has no figure for, and objectives whose figures do not compare."""
    weights, objectives = recipe.search.devices, recipe.search.objectives
    weighed = {name: kind for name, kind in kinds.items() if weights == "worst" or name in weights}
    if "instructions" in objectives and (text := _not_counting(weighed)):
        yield Problem(("search", "objectives"), text)
    times = {kind.time for kind in weighed.values()}
    for name in ("latency_p90_ms", "energy_uj"):
        if name in objectives and len(times) > 1:
            listed = ", ".join(f"{device} ({kind.time})" for device, kind in weighed.items())
            text = (
                f"{name} of unlike devices does not compare: {listed}; give search.devices weights for those of one "
                "kind only, for example search.devices={"
                + next(iter(weighed))
                + ": 1}; limits of the budget hold on all"
            )
            yield Problem(("search", "objectives"), text)
    if not recipe.bench.energy and not all(kind.counts for kind in kinds.values()):
        text = "needs bench.energy=true, on a phone that tells its power; or a device that counts, which models it"
        if recipe.budget.energy_uj is not None:
            yield Problem(("budget", "energy_uj"), text)
        elif recipe.limits.energy_uj is not None:
            yield Problem(("compress", "budget", "energy_uj"), text)
        if "energy_uj" in recipe.search.objectives:
            yield Problem(("search", "objectives"), f"energy_uj {text}")


def _model_references(model: ModelConfig) -> Iterator[Problem]:
    place = Path(model.weights)
    if model.family is not None and model.family not in MODELS:
        yield Problem(("model", "family"), f"unknown family {model.family!r}{suggest(model.family, MODELS)}")
    if model.weights == "pretrained":
        spec = MODELS.get(model.family or "")
        if spec is not None and spec.pretrained is None:
            having = ", ".join(name for name, other in MODELS.items() if other.pretrained)
            text = f"no packaged weights for {model.family}; use random or a file. Families with weights: {having}"
            yield Problem(("model", "weights"), text)
    elif model.weights != "random" and not any((place.is_file(), (place / INFO_FILE).is_file())):
        text = (
            f"no weights {model.weights!r} in {Path.cwd()}; give pretrained, random, the path of a weights file, or "
            "the folder of a checkpoint"
        )
        yield Problem(("model", "weights"), text)


def _data_references(data: DataConfig) -> Iterator[Problem]:
    if data.path is not None and not data.path.exists():
        yield Problem(("data", "path"), f"{str(data.path)!r} does not exist in {Path.cwd()}")
    elif data.path is not None and data.path.is_dir() != (data.source in FOLDERS):
        wanted = FOLDERS.get(data.source, "file")
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
    detector = task(recipe.task).detector if _is_known(recipe.task) else None
    if detector is None:
        return
    preprocess, coarsest = spec.preprocess, max(detector.strides)
    height = recipe.data.input.height or preprocess.height
    sides = {"height": height, "width": recipe.data.input.width or recipe.data.input.height or preprocess.width}
    for side, pixels in sides.items():
        if pixels % coarsest:
            nearest = coarsest * (pixels // coarsest + 1)
            text = f"{pixels} is no multiple of {coarsest}, the largest of task.strides; say {nearest}"
            yield Problem(("data", "input", side), text)


def _student_problems(recipe: Recipe) -> Iterator[Problem]:
    """New networks of a distil step that cannot be built, or that would undo what comes before."""
    for index, step in enumerate(recipe.steps):
        if not isinstance(step, DistilConfig) or step.student is None:
            continue
        student, place = step.student, ("compress", index, "student")
        if index > 0:
            done = ", ".join(earlier.technique for earlier in recipe.steps[:index])
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
