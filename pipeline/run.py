"""One trial, on one screen. The search and the nightly job call the same function, so they can never differ."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import JsonValue

from phonefit.device_bench.device import Device
from phonefit.device_bench.devices import open_device
from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.record import digest_of, write_atomically
from phonefit.models.tasks import task, task_key
from phonefit.models.tasks.task import drop_of
from phonefit.pipeline.ask import ask_run_devices
from phonefit.pipeline.budget import best_file, memory_limit, missed_on
from phonefit.pipeline.checks import JudgedFile, TrialChecks
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.context import Context, Progress, SilentProgress
from phonefit.pipeline.convert.memory_plan import planned_memory
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.errors_page import errors_page
from phonefit.pipeline.evaluate import evaluate_file, stored_outputs, with_chosen_decoding
from phonefit.pipeline.finetune import base_preprocess, finetune, quality_before
from phonefit.pipeline.folders import held, replaced
from phonefit.pipeline.measure import measure
from phonefit.pipeline.preflight import preflight
from phonefit.pipeline.prepare import prepare, resolve_preprocess
from phonefit.pipeline.recipe import Recipe, resolved_steps
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_file import as_recipe
from phonefit.pipeline.recipe_steps import StepConfig
from phonefit.pipeline.result import ConvertedFile, FileResult, StageUse, TrialResult, Variant
from phonefit.pipeline.result_plan import PlanResult
from phonefit.pipeline.store import StageResult, Store, explain_disk_errors, write_result

PLANNED, ERRORS = "planned.yaml", "errors.html"


@dataclass
class StageLog:
    """The stages that a trial went through, in order."""

    uses: list[StageUse]

    def add(self, stage: str, result: StageResult) -> None:
        """Note one stage."""
        self.uses.append(StageUse(stage=stage, key=result.key, reused=result.reused, seconds=result.seconds))


def open_context(recipe: Recipe, runs: Path, progress: Progress) -> Context:
    """Prepare the data and everything that the stages share.

    Raises:
        DataError: the data cannot be used.
        StoreError: the runs folder cannot be written.
    """
    store = Store(runs)
    log = store.folder(recipe.name) / "run.log"
    preprocess = resolve_preprocess(base_preprocess(recipe.model), recipe.data.input)
    asked = task(recipe.task)
    pictures = prepare(recipe.data, preprocess, store, progress, asked.target, asked.split_by)
    fitted = asked.fitted(pictures.labels, pictures.targets("train"), preprocess)
    key = task_key(recipe.task)
    return Context(
        store, pictures, fitted, recipe.seed, log, recipe.threads, recipe.train_on, progress=progress, task_key=key
    )


def run_trial(
    recipe: Recipe,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
    checks: TrialChecks | None = None,
) -> TrialResult:
    """One pass: fine-tune, compress, convert, evaluate, measure, check the budget. Reads no test picture.

    Args:
        checks: may end the trial between its stages.

    Raises:
        TrialEndedError: `checks` ended the trial.
        PhonefitError: a stage failed; what was finished before it is kept in the store.
    """
    context = open_context(recipe, runs, progress or SilentProgress())
    devices = [open_device(name) for name in recipe.bench.devices]
    preflight(recipe, context, *devices)
    context = replace(context, ask=ask_run_devices(recipe, devices, context))
    stages, plan = StageLog([]), None
    try:
        if checks is not None:
            checks.before_training(recipe, context, devices[0])
        tuned_stage, tuned = finetune(recipe, context, None if checks is None else checks.after_epoch)
        stages.add("finetune", tuned_stage)
        concrete = recipe
        if isinstance(recipe.compress, AutoConfig):
            # imported here: it needs torch, and what only checks a recipe does not
            from phonefit.pipeline.planner import plan_compression

            def build(steps: tuple[StepConfig, ...]) -> tuple[Checkpoint, list[FileResult]]:
                listed = concrete_recipe(recipe, steps, original=False)
                return _compress_and_measure(listed, tuned, context, devices, stages)

            plan = plan_compression(recipe, recipe.compress, tuned, context, devices, build)
            concrete = concrete_recipe(recipe, plan.steps, recipe.convert.original)
            checks = None  # every file of the plan has been measured
        compressed, files = _compress_and_measure(concrete, tuned, context, devices, stages, checks)
    finally:
        with ExitStack() as cleaning:  # each of them, also where one fails
            for device in devices:
                cleaning.callback(device.cleanup)
    return TrialResult(
        recipe=recipe.as_json(),
        recipe_digest=digest_of(recipe.as_json()),
        quality_name=context.task.quality,
        quality_better=context.task.better,
        quality_unit=context.task.unit,
        baseline=_baseline(context),
        quality_before=quality_before(tuned_stage.path, context.task),
        checkpoint_metrics={"original": tuned.info.metrics, "compressed": compressed.info.metrics},
        files=tuple(files),
        best=best_file(files, context.task.quality, len(context.data.targets("validation")), context.task.better),
        stages=tuple(stages.uses),
        unreadable=tuple(f"{item.name}: {item.reason}" for item in context.data.unreadable),
        plan=plan,
        notes=(*_data_notes(context), *_lineage_notes(compressed)),
    )


def concrete_recipe(recipe: Recipe, steps: Sequence[StepConfig | Mapping[str, JsonValue]], original: bool) -> Recipe:
    """A recipe whose compression is planned, with the steps listed; the limits of the plan are in its budget."""
    content = recipe.as_json() | {
        "compress": [step if isinstance(step, Mapping) else step.as_json() for step in steps],
        "convert": {**recipe.convert.as_json(), "original": original},
        "budget": recipe.limits.as_json(),
    }
    return Recipe.model_validate(content)


def _compress_and_measure(
    recipe: Recipe,
    tuned: Checkpoint,
    context: Context,
    devices: Sequence[Device],
    stages: StageLog,
    checks: TrialChecks | None = None,
) -> tuple[Checkpoint, list[FileResult]]:
    """The steps that the recipe lists, and then every file that it asks for."""
    compressed, limit, judged, files = tuned, memory_limit(recipe.budget), [], []
    for step in resolved_steps(recipe):
        step_stage, compressed = compress_step(compressed, step, context, tuned)
        stages.add(step.technique, step_stage)
    for variant, checkpoint in _variants(recipe, tuned, compressed):
        for runtime in recipe.convert.runtimes:
            converted, artifact, path, parity = convert_stage(checkpoint, runtime, context, recipe.convert)
            evaluated, quality = evaluate_file(artifact, path, "validation", context)
            stages.add("convert", converted)
            stages.add("evaluate", evaluated)
            artifact = with_chosen_decoding(artifact, evaluated)
            drop = drop_of(context.task, tuned.info.metrics[context.task.quality], quality[context.task.quality])
            planned = planned_memory(path, runtime)
            judged.append(JudgedFile(variant, checkpoint, artifact, path, parity, quality, drop, planned))
    if checks is not None:
        checks.before_measuring(recipe, judged)
    for one in judged:
        reports = []
        for name, device in zip(recipe.bench.devices, devices, strict=True):
            measured, report = measure(one.artifact, one.path, device, recipe.bench.on(name), context, limit)
            stages.add("measure", measured)
            reports.append(report)
        file = FileResult(
            variant=one.variant,
            artifact=one.artifact,
            path=one.path.relative_to(context.store.root).as_posix(),
            checkpoint=one.source.digest,
            parity=one.parity,
            quality=one.quality,
            quality_drop=one.quality_drop,
            drop_is_growth=context.task.better == "lower",
            report=reports[0],
            further_reports=tuple(reports[1:]),
            planned_memory=one.planned_memory,
        )
        missed = missed_on(recipe.bench.devices, file, recipe.budget)
        files.append(file.model_copy(update={"violations": missed}))
    return compressed, files


def run(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
) -> TrialResult:
    """Run a recipe, read the test side for the final figures, and put the files into RUNS/NAME/files.

    Args:
        recipe: a Recipe, the name of a shipped one, or a path.
        overrides: "dotted.path=value".
        runs: the runs folder; finished stages in it are reused.

    Returns:
        All figures; `best` is None when no file fits the budget, and `budget.nothing_fits` says why.

    Raises:
        PhonefitError: bad input, or a stage failed.
    """
    recipe = as_recipe(recipe, overrides)
    progress = progress or SilentProgress()
    trial = run_trial(recipe, runs, progress)
    trial = trial.model_copy(update={"files": with_test_quality(trial.files, recipe, runs, progress)})
    folder = Store(runs).folder(recipe.name)
    publish(trial, runs, folder)
    write_errors(trial, recipe, runs, progress)
    return trial


def write_errors(trial: TrialResult, recipe: Recipe, runs: Path, progress: Progress) -> None:
    """Write RUNS/NAME/errors.html: where the best file is wrong on the validation side."""
    file = trial.shown
    context = open_context(recipe, runs, progress)
    outputs = {}
    for one in trial.files:
        if one.artifact.runtime == file.artifact.runtime:
            evaluated, _ = evaluate_file(one.artifact, runs / one.path, "validation", context)
            if (rows := stored_outputs(evaluated)) is not None:
                outputs[one.name] = rows
    if (own := outputs.pop(file.name, None)) is not None:
        made = context.task.read_by(file.artifact.decoding)
        page = errors_page(f"{recipe.name}: {file.name}", "validation", own, made, context.data, outputs)
        with explain_disk_errors(runs):
            write_atomically(runs / recipe.name / ERRORS, page.encode())


def publish(trial: TrialResult, runs: Path, folder: Path) -> None:
    """Put the files of a trial into `folder`/files in place of those of the run before, and then write trial.json.

    A kill leaves the old files or the new ones, whole. Of several processes one is at work, the others wait.
    """
    with explain_disk_errors(folder), held(folder / "locks" / "files"):
        with replaced(folder / "files") as files:
            for file in trial.files:
                export_file(file.artifact, runs / file.path, files, file.variant)
        if trial.plan is not None:
            write_planned(trial.plan, Recipe.model_validate(trial.recipe), folder)
        write_result(folder / "trial.json", trial)


def write_planned(plan: PlanResult, recipe: Recipe, folder: Path) -> None:
    """Write `folder`/planned.yaml: the recipe with the steps that the plan found, which gives the same files."""
    content = concrete_recipe(recipe, plan.steps, recipe.convert.original).as_json()
    content["compress"] = [dict(step) for step in plan.steps]
    title = f"# The steps that were planned for recipe {recipe.name}.\n"
    text = title + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_atomically(folder / PLANNED, text.encode())


def with_test_quality(
    files: Sequence[FileResult], recipe: Recipe, runs: Path, progress: Progress
) -> tuple[FileResult, ...]:
    """The files with their quality on the test side: called once, for the figures shown at the end."""
    context = open_context(recipe, runs, progress)
    tested = []
    for file in files:
        _, quality = evaluate_file(file.artifact, runs / file.path, "test", context)
        tested.append(file.model_copy(update={"test_quality": quality}))
    return tuple(tested)


def convert_checkpoint(
    directory: Path, recipe: Recipe, out: Path, runs: Path, progress: Progress
) -> tuple[ConvertedFile, ...]:
    """Convert one checkpoint for the recipe's runtimes into `out`, checked against the recipe's parity limits.

    Raises:
        FileFormatError: `directory` is not a checkpoint.
        RecipeError: the checkpoint was made for another input or for other labels than the recipe's data has.
        ConversionError: a converter cannot realise it, or a file does not compute what the checkpoint does.
    """
    checkpoint, context = open_checkpoint(directory, recipe, runs, progress)
    files = []
    for runtime in recipe.convert.runtimes:
        _, artifact, path, parity = convert_stage(checkpoint, runtime, context, recipe.convert)
        exported = export_file(artifact, path, out, directory.resolve().name)
        files.append(ConvertedFile(artifact=exported, parity=parity))
    return tuple(files)


def open_checkpoint(directory: Path, recipe: Recipe, runs: Path, progress: Progress) -> tuple[Checkpoint, Context]:
    """A checkpoint and the context of the recipe that it was made with.

    Raises:
        FileFormatError: `directory` is not a checkpoint.
        RecipeError: the checkpoint was made for another input or for other labels than the recipe's data has.
    """
    checkpoint = Checkpoint(directory)
    info = checkpoint.info
    context = open_context(recipe, runs, progress)
    if (info.preprocess, info.labels) != (context.data.preprocess, context.data.labels):
        raise RecipeError(
            f"{directory} was made for other data: it has labels {', '.join(info.labels)} and input {info.preprocess}; "
            f"recipe {recipe.name} gives {', '.join(context.data.labels)} and {context.data.preprocess}. "
            "Give the recipe that the checkpoint was made with"
        )
    return checkpoint, context


def export_file(artifact: Artifact, source: Path, folder: Path, stem: str) -> Artifact:
    """Copy a model file with its description into `folder` as STEM-PRECISION.SUFFIX; returns the new description."""
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{stem}-{artifact.precision}{source.suffix}"
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        description = artifact.model_copy(update={"file": name})
        description.save(folder / f"{name}.json")
    return description


def _variants(recipe: Recipe, tuned: Checkpoint, compressed: Checkpoint) -> Iterator[tuple[Variant, Checkpoint]]:
    if recipe.convert.original or not recipe.steps:
        yield "original", tuned
    if recipe.steps:
        yield "compressed", compressed


def _baseline(context: Context) -> tuple[str, float]:
    words, metrics = context.task.baseline(context.data.targets("train"), context.data.targets("validation"))
    return words, metrics[context.task.quality]


def _data_notes(context: Context) -> Iterator[str]:
    unreadable = context.data.unreadable
    if unreadable:
        shown = "; ".join(f"{item.name} ({item.reason})" for item in unreadable[:3])
        more = ", …; all are in trial.json" if len(unreadable) > 3 else ""
        yield f"{len(unreadable)} pictures could not be read and were skipped: {shown}{more}"
    for conflict in context.data.conflicts:
        yield f"one picture under several labels ({', '.join(conflict.labels)}): {', '.join(conflict.names)}"


def _lineage_notes(checkpoint: Checkpoint) -> Iterator[str]:
    for step in checkpoint.info.lineage:
        notes = step.config.get("notes", [])
        if isinstance(notes, list):
            yield from (f"{step.stage}: {note}" for note in notes)
