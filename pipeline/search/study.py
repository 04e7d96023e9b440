"""The search: an Optuna study in SQLite inside the run folder. The only file that knows Optuna studies.

    RUNS/NAME/study.db        the study
    RUNS/NAME/trials/N.json   TrialResult of trial N
    RUNS/NAME/search.json     SearchResult, written anew after every trial
    RUNS/NAME/locks/          study: held while a trial is chosen; trial-N: held while it runs

Several processes can work on one study. A trial whose process died is marked as failed and its point is tried again.
"""

import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from phonefit.models.record import canonical_json, digest_of
from phonefit.pipeline.context import Progress, SilentProgress
from phonefit.pipeline.errors import PhonefitError, RecipeError, StoreError
from phonefit.pipeline.folders import held, try_lock
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides, as_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.definition import definition_of, differences, surroundings_of
from phonefit.pipeline.search.outcome import outcome_of
from phonefit.pipeline.search.result import DIRECTIONS, SearchResult, SearchTrial, State, pareto_front
from phonefit.pipeline.search.samplers import sampler
from phonefit.pipeline.search.space import decode, distributions, encode, point_key, points, size, suggest
from phonefit.pipeline.store import Store, explain_disk_errors, write_result

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SAME_FAILURES = 3
"""So many trials in a row that fail with the same message end the search."""
ATTEMPTS = 10
"""So often a point is tried whose process died: often, because a kill mostly comes from outside; not for ever,
because the point itself may be what fills the memory."""
_REPEATS = 5  # so many known points in a row, then a random unknown one is taken
_LARGEST_GRID = 20_000  # finite spaces up to this size are tried without repeats, and to the end


class SearchStoppedError(PhonefitError):
    """The same failure again and again. Exits as the failure itself would."""

    def __init__(self, cause: PhonefitError, trials: Sequence[int]) -> None:
        super().__init__(
            f"the search stopped: trials {', '.join(map(str, trials))} failed in a row with the same message: {cause}\n"
            "Finished trials are kept; when the reason is gone, the same command tries these points again"
        )
        self.exit_code = cause.exit_code


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs. The lock is held until `lock` is closed."""

    trial: "Trial"
    values: Mapping[str, JsonValue]
    lock: TextIOWrapper


def search(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
    evaluate: Callable[[Recipe], TrialResult] | None = None,
) -> SearchResult:
    """Search the recipe's space, or go on with a search of the same name.

    A trial counts when it is complete or has failed for a reason of its own; one that was killed, and a point that
    was tried before, do not. The search ends early when every point of a finite space has been tried.

    Args:
        recipe: a Recipe, the name of a shipped one, or a path; its `search` says what to vary, how, and what for.
        overrides: "dotted.path=value".
        trials: trials of the study in total, those of earlier calls included; default: the recipe's search.trials.
        runs: the runs folder.
        evaluate: one trial; default: `run_trial`, with its stages in the store of `runs`.

    Raises:
        RecipeError: the recipe has problems, or the study of this name is about something else.
        SearchStoppedError: three trials in a row failed with the same message.
        StoreError: the run folder cannot be written or read.
    """
    recipe = as_recipe(recipe, overrides)
    distributions(recipe.search.space)
    progress = progress or SilentProgress()
    own_trials = evaluate is None
    evaluate = evaluate or _default_evaluate(runs, progress)
    wanted = trials or recipe.search.trials
    folder = Store(runs).folder(recipe.name)
    surroundings = surroundings_of(recipe, runs, progress) if own_trials else {}
    with _quiet_optuna(), _explain_storage_errors(folder), explain_disk_errors(runs):
        (folder / "locks").mkdir(exist_ok=True)
        study = _open_study(recipe, folder, surroundings)
        failures: list[tuple[str, int]] = []
        with progress.stage(f"search: {recipe.search.sampler}", total=wanted) as advance:
            advance(min(wanted, len(_taken(study, recipe))))
            while claim := _claim(study, recipe, folder, wanted):
                try:
                    failure = _run(study, claim, recipe, folder, evaluate)
                finally:
                    _lock_of(folder, claim.trial.number).unlink(missing_ok=True)
                    claim.lock.close()
                _summarise(study, recipe, folder, wanted)
                advance(1, f"trial {claim.trial.number}{' failed' if failure else ''}")
                if failure is None:
                    failures.clear()
                    continue
                failures = [pair for pair in failures if pair[0] == str(failure)] + [(str(failure), claim.trial.number)]
                if len(failures) == SAME_FAILURES:
                    numbers = [number for _, number in failures]
                    _try_again(study, numbers, folder)
                    _summarise(study, recipe, folder, wanted)
                    raise SearchStoppedError(failure, numbers) from failure
        result = _summarise(study, recipe, folder, wanted)
        if own_trials:
            from phonefit.pipeline.search.front import with_front_tested

            result = with_front_tested(result, recipe, runs, progress)
            write_result(folder / "search.json", result)
        return result


def _default_evaluate(runs: Path, progress: Progress) -> Callable[[Recipe], TrialResult]:
    from phonefit.pipeline.run import run_trial

    # The float original is there to compare a single run with; a trial that wants it has no compression steps.
    alone = {"convert.original": False}
    return lambda recipe: run_trial(apply_overrides(recipe, alone), runs, progress)


def _open_study(recipe: Recipe, folder: Path, surroundings: Mapping[str, JsonValue]) -> "Study":
    """Create or load the study of this recipe, and check that it is about the same thing."""
    import optuna
    from optuna.storages import RDBStorage

    path = folder / "study.db"
    with held(folder / "locks" / "study"):
        # A creator, because a path in a URL loses its special characters.
        storage = RDBStorage("sqlite:///study.db", engine_kwargs={"creator": partial(_connect, path)})
        study = optuna.create_study(
            storage=storage,
            study_name="search",
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


def _connect(path: Path) -> sqlite3.Connection:
    """Safe against a killed process at any moment, and quicker than SQLite's default, which syncs each step twice."""
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _short(value: JsonValue) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _claim(study: "Study", recipe: Recipe, folder: Path, wanted: int) -> Claim | None:
    """The next trial for this process; None when there is nothing left to do."""
    from optuna.trial import TrialState

    space = recipe.search.space
    points_in_all = size(space)
    on_grid = points_in_all is not None and points_in_all <= _LARGEST_GRID
    with held(folder / "locks" / "study"):
        _bury_dead_trials(study, folder)
        repeats = 0
        while True:
            known, taken = _known_points(study, recipe), len(_taken(study, recipe))
            if taken >= wanted or len(known) == points_in_all:
                return None
            seed = int(digest_of([recipe.seed, taken, repeats])[:8], 16)
            study.sampler = sampler(recipe.search.sampler)(seed, space)
            trial = study.ask()
            values = suggest(trial, space)
            earlier = known.get(point_key(values))
            if earlier is None or (not on_grid and repeats > _REPEATS):
                lock = try_lock(_lock_of(folder, trial.number))
                assert lock is not None  # nobody else has this number
                return Claim(trial, values, lock)
            trial.set_user_attr("duplicate_of", earlier)
            study.tell(trial, state=TrialState.FAIL)
            repeats += 1
            if repeats == _REPEATS and on_grid:
                unknown = [point for point in points(space) if point_key(point) not in known]
                study.enqueue_trial(encode(random.Random(seed).choice(unknown), space))


def _taken(study: "Study", recipe: Recipe) -> list[SearchTrial]:
    """Trials that count towards the number that is wanted, those of other processes included."""
    return [trial for trial in _trials(study, recipe) if trial.state in ("complete", "failed", "running")]


def _known_points(study: "Study", recipe: Recipe) -> dict[str, int]:
    """Point -> number of the first trial that tries or tried it."""
    return {point_key(trial.parameters): trial.number for trial in reversed(_taken(study, recipe))}


def _run(
    study: "Study", claim: Claim, recipe: Recipe, folder: Path, evaluate: Callable[[Recipe], TrialResult]
) -> PhonefitError | None:
    """Evaluate one trial and tell the study; returns why it failed, if it did."""
    from optuna.trial import TrialState

    trial = claim.trial
    try:
        result = evaluate(apply_overrides(recipe, claim.values))
        outcome = outcome_of(result, recipe.search.objectives, recipe.budget)
        write_result(folder / "trials" / f"{trial.number}.json", result)
        for name, excess in outcome.constraints.items():
            trial.set_constraint(name, excess)
        trial.set_user_attr("notes", outcome.notes)
        study.tell(trial, outcome.values)
    except StoreError:
        _give_back(study, trial)  # no trial can succeed without a disk
        raise
    except PhonefitError as error:
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return error
    except BaseException:
        _give_back(study, trial)
        raise
    return None


def _give_back(study: "Study", trial: "Trial") -> None:
    """End a trial that was stopped from outside, and queue its point."""
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.FAIL)
    study.enqueue_trial(dict(trial.params), user_attrs={"attempt": trial.user_attrs.get("attempt", 0)})


def _bury_dead_trials(study: "Study", folder: Path) -> None:
    """Fail the running trials whose process died, and queue their points."""
    from optuna.trial import TrialState

    for running in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        path = _lock_of(folder, running.number)
        lock = try_lock(path)
        if lock is None:
            continue
        with lock:
            # Read again: its process may have finished it, rather than died, since the list was read.
            trial = study.get_trials(deepcopy=False)[running.number]
            if trial.state == TrialState.RUNNING:
                _bury(study, trial)
            path.unlink(missing_ok=True)


def _bury(study: "Study", trial: "FrozenTrial") -> None:
    from optuna.trial import TrialState

    attempt = trial.user_attrs.get("attempt", 0) + 1
    if attempt >= ATTEMPTS:
        _extend(study, "given_up", [trial.number])
    study.tell(trial.number, state=TrialState.FAIL)
    # Killed here, the point is drawn once more: the seed depends on the trials that count, and this one does not.
    whole = len(trial.params) == len(study.user_attrs["definition"]["search.space"])
    parameters = trial.params if whole else trial.system_attrs.get("fixed_params")
    if parameters and attempt < ATTEMPTS:
        study.enqueue_trial(parameters, user_attrs={"attempt": attempt})


def _try_again(study: "Study", numbers: Sequence[int], folder: Path) -> None:
    """Queue the points of failed trials that say nothing about their points."""
    with held(folder / "locks" / "study"):
        for trial in study.trials:
            if trial.number in numbers:
                study.enqueue_trial(trial.params)
        _extend(study, "tried_again", numbers)


def _extend(study: "Study", attribute: str, numbers: Sequence[int]) -> None:
    study.set_user_attr(attribute, [*study.user_attrs.get(attribute, []), *numbers])


def _lock_of(folder: Path, number: int) -> Path:
    return folder / "locks" / f"trial-{number}"


def _trials(study: "Study", recipe: Recipe) -> list[SearchTrial]:
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
    elif "duplicate_of" in attributes:
        state = "duplicate"
    elif trial.number in marks.get("given_up", []):
        state = "failed"
        found["reason"] = f"its process died {ATTEMPTS} times, perhaps out of memory"
    elif "reason" in attributes and trial.number not in marks.get("tried_again", []):
        state = "failed"
    else:
        state = "interrupted"
    return SearchTrial(number=trial.number, state=state, parameters=decode(trial.params, recipe.search.space), **found)


def _summarise(study: "Study", recipe: Recipe, folder: Path, wanted: int) -> SearchResult:
    """Write search.json from what the study holds."""
    trials = _trials(study, recipe)
    known = len(_known_points(study, recipe))
    exhausted = known == size(recipe.search.space) and known < wanted
    result = SearchResult(
        name=recipe.name,
        sampler=recipe.search.sampler,
        objectives=recipe.search.objectives,
        trials=tuple(trials),
        pareto=pareto_front(trials, recipe.search.objectives),
        note=f"every one of the {known} points of the space has been tried" if exhausted else "",
    )
    write_result(folder / "search.json", result)
    return result


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on each trial off the terminal; its warnings stay."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def _explain_storage_errors(folder: Path) -> Iterator[None]:
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
