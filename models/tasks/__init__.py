"""Tasks by name."""

from pydantic import JsonValue

from phonefit.models.errors import ModelError, UnknownNameError, first_line
from phonefit.models.factories import code_digest, imported
from phonefit.models.record import file_digest
from phonefit.models.tasks.classification import Classification
from phonefit.models.tasks.detection import Detection
from phonefit.models.tasks.embedding import Embedding
from phonefit.models.tasks.multi_label import MultiLabel
from phonefit.models.tasks.options import (
    DetectionOptions,
    EmbeddingOptions,
    MultiLabelOptions,
    OwnTaskOptions,
    RegressionOptions,
    StyleOptions,
    TaskOptions,
)
from phonefit.models.tasks.regression import Regression
from phonefit.models.tasks.style import Style
from phonefit.models.tasks.task import Task

TASKS: dict[str, Task] = {
    "detection": Detection(),
    "classification": Classification(),
    "regression": Regression(),
    "multi_label": MultiLabel(),
    "embedding": Embedding(),
    "style": Style(),
}


def task(asked: str | TaskOptions) -> Task:
    """The task of that name, or with these options.

    Raises:
        UnknownNameError: with the names that exist.
        ModelError: a person's own task cannot be imported, or is none.
    """
    if isinstance(asked, RegressionOptions):
        return Regression(asked)
    if isinstance(asked, MultiLabelOptions):
        return MultiLabel(asked)
    if isinstance(asked, EmbeddingOptions):
        return Embedding(asked)
    if isinstance(asked, StyleOptions):
        return Style(asked)
    if isinstance(asked, DetectionOptions):
        return Detection(asked)
    if isinstance(asked, OwnTaskOptions):
        return _own_task(asked)
    if asked not in TASKS:
        raise UnknownNameError("task", asked, TASKS)
    return TASKS[asked]


def _own_task(asked: OwnTaskOptions) -> Task:
    try:
        made = imported(asked.factory)(**asked.arguments)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"task {asked.factory!r} failed with {dict(asked.arguments)}: {first_line(error)}") from error
    if not isinstance(made, Task):
        raise ModelError(
            f"task {asked.factory!r} returned a {type(made).__name__}, expected a phonefit.models.tasks.task.Task"
        )
    return made


def task_key(asked: str | TaskOptions) -> JsonValue:
    """What tells the results of one task from those of another in the keys of the store; `task` was called with it."""
    if isinstance(asked, str):
        return asked
    code = {"code": code_digest(asked.factory)} if isinstance(asked, OwnTaskOptions) else {}
    named = asked.files if isinstance(asked, StyleOptions) else {}
    files = {name: file_digest(path) for name, path in named.items()}  # their content counts, not their place
    return {**asked.as_json(), **code, **files}
