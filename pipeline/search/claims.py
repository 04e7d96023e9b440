"""Which trial comes next. One process at a time chooses; a trial is then held by its process until it has ended."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from phonefit.models.record import digest_of
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import check_point
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.search.records import ATTEMPTS, known_points, taken_trials, trials_of
from phonefit.pipeline.search.samplers import sampler
from phonefit.pipeline.search.space import (
    Space,
    axes_in_order,
    decode,
    encode,
    is_whole,
    point_key,
    points,
    size,
    suggest,
)
from phonefit.pipeline.search.storage import Place, Release

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

_REPEATS = 5  # so many known or refused points in a row, then a random one is taken
_LATEST = 6  # if most of so many trials were untrusted, a random point: what is not learned from would come again
_REFUSALS = 200  # so many points without one that can run end the search
_LARGEST_GRID = 20_000  # finite spaces up to this size are tried without repeats, and to the end


@dataclass(frozen=True)
class Job:
    """One search, as every process that works on it needs it.

    Attributes:
        folder: RUNS/NAME.
        wanted: trials of the study in total.
    """

    recipe: Recipe
    folder: Path
    wanted: int
    place: Place

    @property
    def space(self) -> Space:
        """What is searched."""
        return axes_in_order(self.recipe)


@dataclass(frozen=True)
class Claim:
    """A trial that this process holds until it calls `release`."""

    trial: "Trial"
    values: Mapping[str, JsonValue]
    release: Release


def claim_trial(study: "Study", job: Job) -> Claim | None:
    """The next trial for this process; None when there is nothing left to do."""
    from optuna.trial import TrialState

    recipe, space = job.recipe, job.space
    points_in_all = size(space)
    on_grid = points_in_all is not None and points_in_all <= _LARGEST_GRID
    with job.place.held():
        _bury_dead_trials(study, job)
        repeats, refusals = 0, 0
        while True:
            trials = trials_of(study, recipe)
            known, counted = known_points(trials), taken_trials(trials)
            taken = len(counted)
            if taken >= job.wanted or len(known) == points_in_all:
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
                return Claim(trial, values, job.place.claim(trial.number))
            study.tell(trial, state=TrialState.FAIL)
            if refusals == _REFUSALS:
                raise RecipeError(f"{refusals} points in a row cannot run, the last one because of {refusal}")
            repeats += 1
            if repeats >= _REPEATS and on_grid:
                known = known_points(trials_of(study, recipe))
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


def give_back(study: "Study", trial: "Trial") -> None:
    """End a trial that was stopped from outside, and queue its point."""
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    study.enqueue_trial(dict(trial.params), user_attrs={"attempt": trial.user_attrs.get("attempt", 0)})


def give_up_lost(study: "Study", job: Job, number: int) -> None:
    """End a trial whose process died while this one holds it, and queue its point."""
    with job.place.held():
        _bury(study, study.get_trials(deepcopy=False)[number], job.space)


def _bury_dead_trials(study: "Study", job: Job) -> None:
    """Fail the running trials whose process died, and queue their points."""
    from optuna.trial import TrialState

    running = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    for number in job.place.lost(running):
        # Read again: its process may have finished it, rather than died, since the list was read.
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state == TrialState.RUNNING:
            _bury(study, trial, job.space)


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


def try_again(study: "Study", place: Place, numbers: Sequence[int]) -> None:
    """Queue the points of failed trials that say nothing about their points."""
    with place.held():
        for trial in study.trials:
            if trial.number in numbers:
                study.enqueue_trial(trial.params)
        _extend(study, "tried_again", numbers)


def _extend(study: "Study", attribute: str, numbers: Sequence[int]) -> None:
    study.set_user_attr(attribute, [*study.user_attrs.get(attribute, []), *numbers])
