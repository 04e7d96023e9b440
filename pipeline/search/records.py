"""Studies on disk: opening one, and reading its trials as the rest of phonefit sees them."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from phonefit.models.record import canonical_json
from phonefit.pipeline.errors import RecipeError, StoreError
from phonefit.pipeline.folders import held
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search.definition import definition_of, differences
from phonefit.pipeline.search.result import DIRECTIONS, SearchTrial, State
from phonefit.pipeline.search.space import decode, point_key

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

STUDY_FILE = "study.db"
STUDY_NAME = "search"
ATTEMPTS = 10
"""So often a point is tried whose process died: often, because a kill mostly comes from outside; not for ever,
because the point itself may be what fills the memory."""


def open_study(recipe: Recipe, folder: Path, surroundings: Mapping[str, JsonValue]) -> "Study":
    """Create or load the study of this recipe, and check that it is about the same thing."""
    import optuna

    path = folder / STUDY_FILE
    with held(folder / "locks" / "study"):
        study = optuna.create_study(
            storage=storage_of(path),
            study_name=STUDY_NAME,
            directions=[DIRECTIONS[name] for name in recipe.search.objectives],
            load_if_exists=True,
        )
        definition = {**definition_of(recipe), **surroundings}
        known = study.user_attrs.get("definition")
        if known is None:
            study.set_user_attr("definition", definition)
        elif different := list(differences(known, definition)):
            shown = [
                f"  {place}: the study has {_short(old)}, "
                f"{'now it is' if place in surroundings else 'the recipe'} {_short(new)}"
                for place, old, new in different
            ]
            raise RecipeError(
                f"{path} is a study of something else, its trials cannot be compared:\n" + "\n".join(shown[:8]) + "\n"
                f"Give this search another name (name={recipe.name}-2), or delete {path} to begin anew; "
                "stages in the store are reused either way"
            )
    return study


def load_study(recipe: Recipe, folder: Path) -> "Study":
    """The study of this recipe, to look at.

    Raises:
        RecipeError: there is none, or its space or objectives are not those of the recipe.
    """
    import optuna

    path = folder / STUDY_FILE
    if not path.is_file():
        raise RecipeError(
            f"there is no search of the name {recipe.name!r}: {path} does not exist; "
            f"begin one with `phonefit search`, or say with --runs where it is"
        )
    study = optuna.load_study(storage=storage_of(path), study_name=STUDY_NAME)
    known, given = study.user_attrs.get("definition", {}), definition_of(recipe)
    shaping = ("search.space", "search.objectives")
    if any(key in known and known[key] != given[key] for key in shaping):
        changed = [place for key in shaping for place, *_ in differences({key: known.get(key)}, {key: given[key]})]
        raise RecipeError(
            f"{path} is a study of something else: it differs from the recipe in {', '.join(changed)}; "
            "give the recipe that it was made with"
        )
    return study


def storage_of(path: Path) -> "RDBStorage":
    """The storage in this file."""
    from optuna.storages import RDBStorage

    # A creator, because a path in a URL loses its special characters.
    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": partial(_connect, path)})


def _connect(path: Path) -> sqlite3.Connection:
    """Safe against a killed process at any moment, and quicker than SQLite's default, which syncs each step twice."""
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _short(value: JsonValue) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def taken_trials(study: "Study", recipe: Recipe) -> list[SearchTrial]:
    """Trials that count towards the number that is wanted, those of other processes included."""
    return [trial for trial in trials_of(study, recipe) if trial.state in ("complete", "failed", "running")]


def known_points(study: "Study", recipe: Recipe) -> dict[str, int]:
    """Point -> number of the first trial that tries or tried it, or that was refused for it."""
    known = [trial for trial in trials_of(study, recipe) if trial.state in ("complete", "failed", "running", "refused")]
    return {point_key(trial.parameters): trial.number for trial in reversed(known)}


def trials_of(study: "Study", recipe: Recipe) -> list[SearchTrial]:
    """Every trial that was begun, as the rest of phonefit sees it."""
    from optuna.trial import TrialState

    marks = study.user_attrs
    frozen = study.get_trials(deepcopy=False)
    return [_record(trial, marks, recipe) for trial in frozen if trial.state != TrialState.WAITING]


def _record(trial: "FrozenTrial", marks: Mapping[str, Any], recipe: Recipe) -> SearchTrial:
    from optuna.trial import TrialState

    attributes = trial.user_attrs
    state: State
    found: dict[str, Any] = {name: attributes[name] for name in ("reason", "duplicate_of") if name in attributes}
    if trial.state == TrialState.RUNNING:
        state = "running"
    elif trial.state == TrialState.COMPLETE:
        state = "complete"
        found["values"] = dict(zip(recipe.search.objectives, trial.values, strict=True))
        found |= {"constraints": trial.constraints, **attributes["notes"]}
    elif "untrusted" in attributes:
        state = "complete"
        figures = attributes["untrusted"]
        found["values"] = dict(zip(recipe.search.objectives, figures["values"], strict=True))
        found |= {"constraints": figures["constraints"], "learned": False, **attributes["notes"]}
    elif "duplicate_of" in attributes:
        state = "duplicate"
    elif "refused" in attributes:
        state = "refused"
        found["reason"] = attributes["refused"]
    elif trial.number in marks.get("given_up", []):
        state = "failed"
        found["reason"] = f"its process died {ATTEMPTS} times, perhaps out of memory"
    elif "reason" in attributes and trial.number not in marks.get("tried_again", []):
        state = "failed"
    else:
        state = "interrupted"
    return SearchTrial(number=trial.number, state=state, parameters=decode(trial.params, recipe.search.space), **found)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on each trial off the terminal; its warnings stay."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def explain_storage_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the database into one sentence."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StoreError(
            f"{folder / 'study.db'}: the study cannot be read or written ({cause}); check free space and permissions. "
            "If the file is damaged, delete it: results in the store and in trials/ are kept"
        ) from error
