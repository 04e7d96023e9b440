"""The search: an Optuna study in SQLite inside the run folder. `records` opens studies and reads their trials.

    RUNS/NAME/study.db        the study
    RUNS/NAME/trials/N.json   TrialResult of trial N
    RUNS/NAME/search.json     SearchResult, written anew after every trial
    RUNS/NAME/locks/          study: held while a trial is chosen; trial-N: held while it runs

Several processes can work on one study. A trial whose process died is marked as failed and its point is tried again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from phonefit.models.record import digest_of
from phonefit.pipeline.context import Progress, SilentProgress
from phonefit.pipeline.errors import PhonefitError, RecipeError, StoreError
from phonefit.pipeline.folders import held, try_lock
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import check_point
from phonefit.pipeline.recipe_file import apply_overrides, as_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.definition import surroundings_of
from phonefit.pipeline.search.outcome import outcome_of
from phonefit.pipeline.search.records import (
    ATTEMPTS,
    explain_storage_errors,
    known_points,
    open_study,
    quiet_optuna,
    taken_trials,
    trials_of,
)
from phonefit.pipeline.search.result import SearchResult, pareto_front
from phonefit.pipeline.search.samplers import sampler
from phonefit.pipeline.search.space import (
    Space,
    axes_in_order,
    decode,
    distributions,
    encode,
    is_whole,
    point_key,
    points,
    size,
    suggest,
)
from phonefit.pipeline.store import Store, explain_disk_errors, write_result

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SAME_FAILURES = 3
"""So many trials in a row that fail with the same message end the search."""
_REPEATS = 5  # so many known or refused points in a row, then a random one is taken
_LATEST = 6  # if most of so many trials were untrusted, a random point: what is not learned from would come again
_REFUSALS = 200  # so many points without one that can run end the search
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
    space = axes_in_order(recipe)
    distributions(space)
    progress = progress or SilentProgress()
    own_trials = evaluate is None
    evaluate = evaluate or _default_evaluate(runs, progress)
    wanted = trials or recipe.search.trials
    folder = Store(runs).folder(recipe.name)
    surroundings = surroundings_of(recipe, runs, progress) if own_trials else {}
    with quiet_optuna(), explain_storage_errors(folder), explain_disk_errors(runs):
        (folder / "locks").mkdir(exist_ok=True)
        study = open_study(recipe, folder, surroundings)
        failures: list[tuple[str, int]] = []
        with progress.stage(f"search: {recipe.search.sampler}", total=wanted) as advance:
            advance(min(wanted, len(taken_trials(study, recipe))))
            while claim := _claim(study, recipe, space, folder, wanted):
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


def _claim(study: "Study", recipe: Recipe, space: Space, folder: Path, wanted: int) -> Claim | None:
    """The next trial for this process; None when there is nothing left to do."""
    from optuna.trial import TrialState

    points_in_all = size(space)
    on_grid = points_in_all is not None and points_in_all <= _LARGEST_GRID
    with held(folder / "locks" / "study"):
        _bury_dead_trials(study, space, folder)
        repeats, refusals = 0, 0
        while True:
            known, counted = known_points(study, recipe), taken_trials(study, recipe)
            taken = len(counted)
            if taken >= wanted or len(known) == points_in_all:
                return None
            seed = int(digest_of([recipe.seed, taken, repeats])[:8], 16)
            latest = [trial.learned for trial in counted[-_LATEST:]]
            stuck = sum(latest) < _LATEST / 2 <= len(latest) or refusals >= _REPEATS
            study.sampler = sampler("random" if stuck else recipe.search.sampler)(seed, space)
            trial = study.ask()
            values = suggest(trial, space)
            earlier = known.get(point_key(values))
            if earlier is not None and (on_grid or repeats <= _REPEATS):
                trial.set_user_attr("duplicate_of", earlier)
            elif refusal := _refusal(recipe, values):
                trial.set_user_attr("refused", refusal)
                refusals += 1
            else:
                lock = try_lock(_lock_of(folder, trial.number))
                assert lock is not None  # nobody else has this number
                return Claim(trial, values, lock)
            study.tell(trial, state=TrialState.FAIL)
            if refusals == _REFUSALS:
                raise RecipeError(f"{refusals} points in a row cannot run, the last one because of {refusal}")
            repeats += 1
            if repeats >= _REPEATS and on_grid:
                known = known_points(study, recipe)
                unknown = [point for point in points(space) if point_key(point) not in known]
                if unknown:
                    study.enqueue_trial(encode(random.Random(seed).choice(unknown), space))


def _refusal(recipe: Recipe, values: Mapping[str, JsonValue]) -> str | None:
    """Why this point cannot run: choices that are valid each by itself can exclude each other."""
    try:
        check_point(apply_overrides(recipe, values))
    except RecipeError as error:
        return str(error)
    return None


def _run(
    study: "Study", claim: Claim, recipe: Recipe, folder: Path, evaluate: Callable[[Recipe], TrialResult]
) -> PhonefitError | None:
    """Evaluate one trial and tell the study; returns why it failed, if it did."""
    from optuna.trial import TrialState

    trial = claim.trial
    try:
        result = evaluate(apply_overrides(recipe, claim.values))
        outcome = outcome_of(result, recipe.search.objectives, recipe.limits)
        write_result(folder / "trials" / f"{trial.number}.json", result)
        trial.set_user_attr("notes", outcome.notes)
        if outcome.reliable or recipe.search.untrusted == "learn":
            for name, excess in outcome.constraints.items():
                trial.set_constraint(name, excess)
            study.tell(trial, outcome.values)
        else:  # samplers leave failed trials out; the figures are kept beside, to be shown
            figures = {"values": outcome.values, "constraints": outcome.constraints}
            trial.set_user_attr("untrusted", figures)
            study.tell(trial, state=TrialState.FAIL)
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


def _bury_dead_trials(study: "Study", space: Space, folder: Path) -> None:
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
                _bury(study, trial, space)
            path.unlink(missing_ok=True)


def _bury(study: "Study", trial: "FrozenTrial", space: Space) -> None:
    from optuna.trial import TrialState

    attempt = trial.user_attrs.get("attempt", 0) + 1
    if attempt >= ATTEMPTS:
        _extend(study, "given_up", [trial.number])
    study.tell(trial.number, state=TrialState.FAIL)
    # Killed here, the point is drawn once more: the seed depends on the trials that count, and this one does not.
    whole = is_whole(decode(trial.params, space), space)
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


def _summarise(study: "Study", recipe: Recipe, folder: Path, wanted: int) -> SearchResult:
    """Write search.json from what the study holds."""
    trials = trials_of(study, recipe)
    known = len(known_points(study, recipe))
    exhausted = known == size(axes_in_order(recipe)) and known < wanted
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
