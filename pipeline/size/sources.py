"""What the gate looks at: files, and the files that recipes give. A recipe goes through the store, as in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import INFO_FILE
from phonefit.models.errors import FileFormatError
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import load_recipe, shipped_recipes

CONVERTER = "phonefit-convert"
"""Name under which phonefit's own conversion counts as a tool; its version is the stage's code version."""


@dataclass(frozen=True)
class Source:
    """One file to measure.

    Attributes:
        name: of a recipe RECIPE/VARIANT.SUFFIX, of a file its path as it was given.
        subject: the recipe or file that was named.
        tools: package -> version, as far as they are known.
        checkpoint: STAGE/KEY of what was converted, in the store; "" for a file.
        described_sha256: of the file that precision and tools belong to; "" where nothing describes the file.
    """

    name: str
    subject: str
    path: Path
    precision: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    described_sha256: str = ""


@dataclass(frozen=True)
class Broken:
    """A subject or file that could not be measured, and why."""

    name: str
    subject: str
    error: str


@dataclass(frozen=True)
class Subject:
    """What was named: a file, or a recipe that has been read.

    Attributes:
        text: as it was given.
    """

    text: str
    recipe: Recipe | None = None


def read_subjects(texts: Sequence[str]) -> list[Subject]:
    """Recipes are read and files looked for before any work.

    Raises:
        RecipeError, UnknownNameError: a recipe is wrong.
        FileFormatError: a file is not there.
    """
    subjects = []
    for text in dict.fromkeys(texts):
        if text in shipped_recipes() or Path(text).suffix in (".yaml", ".yml"):
            subjects.append(Subject(text, load_recipe(text)))
        elif Path(text).is_file():
            subjects.append(Subject(text))
        else:
            raise FileFormatError(
                f"{text}: no such file in {Path.cwd()}, and no recipe of that name; give model files, YAML recipes, or "
                f"one of {', '.join(shipped_recipes())}"
            )
    names = [subject.recipe.name for subject in subjects if subject.recipe is not None]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(
            f"two recipes are named {', '.join(sorted(twice))}; their artifacts would be mixed up: rename"
        )
    return subjects


def sources_of(subject: Subject, runs: Path, progress: Progress) -> Iterator[Source]:
    """The files of one subject; a recipe is run as `phonefit run` would, as far as the store lacks its stages.

    Raises:
        PhonefitError: a stage of the recipe failed.
    """
    if subject.recipe is None:
        yield _file_source(subject.text)
        return
    from phonefit.models.checkpoint import Checkpoint  # imported here: files need nothing of this
    from phonefit.pipeline.run import run_trial

    bench = subject.recipe.bench.model_copy(update={"reuse": True})
    recipe = subject.recipe.model_copy(update={"bench": bench})
    trial = run_trial(recipe, runs, progress)
    folders = [runs / "store" / use.stage / use.key for use in trial.stages]
    made = {Checkpoint(folder).digest: folder for folder in dict.fromkeys(folders) if (folder / INFO_FILE).is_file()}
    for file in trial.files:
        folder = made.get(file.checkpoint)
        yield Source(
            name=f"{recipe.name}/{file.variant}{SUFFIXES[file.artifact.runtime]}",
            subject=subject.text,
            path=runs / file.path,
            precision=file.artifact.precision,
            tools=_tools(file.artifact),
            checkpoint="" if folder is None else f"{folder.parent.name}/{folder.name}",
            described_sha256=file.artifact.sha256,
        )


def reconverted(subject: Subject, checkpoint: str, runtime: Runtime, runs: Path, progress: Progress) -> Source | None:
    """A blessed checkpoint converted by the present tools; None when the store no longer holds it.

    Raises:
        PhonefitError: the conversion failed.
    """
    from phonefit.models.checkpoint import Checkpoint
    from phonefit.pipeline.convert.stage import MODEL_NAME, converted
    from phonefit.pipeline.run import open_context

    folder = runs / "store" / checkpoint
    if subject.recipe is None or not checkpoint or not (folder / INFO_FILE).is_file():
        return None
    result = converted(Checkpoint(folder), runtime, open_context(subject.recipe, runs, progress))
    artifact, path = load_artifact(result.path / f"{MODEL_NAME}{SUFFIXES[runtime]}")
    return Source(
        f"{checkpoint}{SUFFIXES[runtime]}", subject.text, path, artifact.precision, _tools(artifact), checkpoint
    )


def runtime_of_name(name: str) -> Runtime | None:
    """The runtime of an artifact by the suffix of its name; None for other files."""
    return next((runtime for runtime, suffix in SUFFIXES.items() if name.endswith(suffix)), None)


def _tools(artifact: Artifact) -> dict[str, str]:
    from phonefit.pipeline.convert.stage import CODE_VERSION

    return {**artifact.tools, CONVERTER: str(CODE_VERSION)}


def _file_source(text: str) -> Source:
    path = Path(text)
    description = path.with_name(f"{path.name}.json")
    if not description.is_file():
        return Source(path.as_posix(), text, path)
    try:
        artifact = Artifact.load(description)
    except FileFormatError:  # not written by phonefit: the file alone counts
        return Source(path.as_posix(), text, path)
    return Source(
        path.as_posix(), text, path, artifact.precision, dict(artifact.tools), described_sha256=artifact.sha256
    )
