"""Working on a study: one trial after the other, until nothing is left to do. Each process does this by itself."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phonefit.pipeline.checks import TrialChecks
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import PhonefitError, StoreError, TrialEndedError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.claims import Claim, Job, claim_trial, give_back, try_again
from phonefit.pipeline.search.outcome import devices_in_words, outcome_of
from phonefit.pipeline.search.records import known_points, trials_of
from phonefit.pipeline.search.result import SearchResult, pareto_front
from phonefit.pipeline.search.screening import Screening
from phonefit.pipeline.search.space import axes_in_order, size
from phonefit.pipeline.store import write_result

if TYPE_CHECKING:
    from optuna import Study

logger = logging.getLogger(__name__)

Evaluate = Callable[[Recipe, TrialChecks], TrialResult]
"""One trial, which the checks may end."""
Begun = Callable[[int], None]
"""Called with the number of a trial before it runs."""
Ended = Callable[[int, PhonefitError | None], None]
"""Called with the number of a trial after it, and why it failed, if it did."""

SAME_FAILURES = 3
"""So many trials in a row that fail with the same message end the search."""


class SearchStoppedError(PhonefitError):
    """The search cannot go on, because of the same failure again and again. Exits as the failure itself would."""

    def __init__(self, message: str, exit_code: int = PhonefitError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Failures:
    """The trials that failed in a row with the same message."""

    def __init__(self) -> None:
        self._message = ""
        self._numbers: list[int] = []

    def note(self, study: "Study", job: Job, number: int, failure: PhonefitError | None) -> None:
        """Note how a trial ended.

        Raises:
            SearchStoppedError: it was one failure too many; the points of these trials are queued again.
        """
        if failure is None or str(failure) != self._message:
            self._message, self._numbers = str(failure or ""), []
        if failure is None:
            return
        self._numbers.append(number)
        if len(self._numbers) == SAME_FAILURES:
            try_again(study, job.place, self._numbers)
            summarise(study, job)
            raise SearchStoppedError(
                f"the search stopped: trials {', '.join(map(str, self._numbers))} failed in a row with the same "
                f"message: {failure}\n"
                "Finished trials are kept; when the reason is gone, the same command tries these points again",
                failure.exit_code,
            ) from failure


def evaluation(own: Callable[[Recipe], TrialResult] | None, runs: Path, progress: Progress) -> Evaluate:
    """How a trial is run: as the caller of the search says, or by `run_trial` with the store of `runs`."""
    if own is not None:
        return lambda recipe, checks: own(recipe)
    from phonefit.pipeline.run import run_trial

    # The float original is there to compare a single run with; a trial that wants it has no compression steps.
    alone = {"convert.original": False}
    return lambda recipe, checks: run_trial(apply_overrides(recipe, alone), runs, progress, checks)


def work(study: "Study", job: Job, evaluate: Evaluate, begun: Begun, ended: Ended) -> None:
    """Run trials in this process until the study has all that it should have.

    Raises:
        SearchStoppedError: three trials in a row failed with the same message.
        StoreError: the run folder or the study cannot be written or read.
    """
    failures = Failures()
    while claim := claim_trial(study, job):
        number = claim.trial.number
        begun(number)
        failure = finish(study, claim, job, evaluate)
        ended(number, failure)
        failures.note(study, job, number, failure)


def finish(study: "Study", claim: Claim, job: Job, evaluate: Evaluate) -> PhonefitError | None:
    """Run a trial, tell the study, let go of it, and write search.json; returns why it failed, if it did."""
    try:
        failure = _run(study, claim, job, evaluate)
    finally:
        claim.release()
    summarise(study, job)
    return failure


def _run(study: "Study", claim: Claim, job: Job, evaluate: Evaluate) -> PhonefitError | None:
    """Evaluate one trial and tell the study; returns why it failed, if it did."""
    from optuna.exceptions import UpdateFinishedTrialError

    try:
        return _told(study, claim, job, evaluate)
    except UpdateFinishedTrialError:  # a database that was started anew has dropped the lock
        number = claim.trial.number
        logger.warning("trial %d was taken for lost by another process, which tries its point again", number)
        return None


def _told(study: "Study", claim: Claim, job: Job, evaluate: Evaluate) -> PhonefitError | None:
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    recipe, trial = job.recipe, claim.trial
    try:
        varied = apply_overrides(recipe, claim.values)
        result = evaluate(varied, Screening(study, trial, varied))
        outcome = outcome_of(result, recipe.search.objectives, recipe.limits, recipe.device_weights)
        write_result(job.folder / "trials" / f"{trial.number}.json", result)
        trial.set_user_attr("notes", outcome.notes)
        if outcome.reliable or recipe.search.untrusted == "learn":
            for name, excess in outcome.constraints.items():
                trial.set_constraint(name, excess)
            study.tell(trial, outcome.values)
        else:  # samplers leave failed trials out; the figures are kept beside, to be shown
            figures = {"values": outcome.values, "constraints": outcome.constraints}
            trial.set_user_attr("untrusted", figures)
            study.tell(trial, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        raise
    except TrialEndedError:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    except StoreError:
        give_back(study, trial)  # no trial can succeed without a disk
        raise
    except PhonefitError as error:
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return error
    except BaseException:
        give_back(study, trial)
        raise
    return None


def summarise(study: "Study", job: Job) -> SearchResult:
    """Write search.json from what the study holds."""
    recipe = job.recipe
    trials = trials_of(study, recipe)
    known = len(known_points(trials))
    exhausted = known == size(axes_in_order(recipe)) and known < job.wanted
    result = SearchResult(
        name=recipe.name,
        sampler=recipe.search.sampler,
        objectives=recipe.search.objectives,
        trials=tuple(trials),
        pareto=pareto_front(trials, recipe.search.objectives),
        note=f"every one of the {known} points of the space has been tried" if exhausted else "",
        devices=devices_in_words(recipe),
    )
    write_result(job.folder / "search.json", result)
    return result
