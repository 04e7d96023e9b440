"""Tasks by name."""

from phonefit.models.errors import UnknownNameError
from phonefit.models.tasks.classification import Classification
from phonefit.models.tasks.task import Task

TASKS: dict[str, Task] = {"classification": Classification()}


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]
