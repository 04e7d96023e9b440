"""What a task of a Ray cluster does: one trial, on the machine where the task was put. Does not import Ray."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from phonefit.device_bench.turns import taking_turns
from phonefit.pipeline.errors import PhonefitError, RecipeError, StoreError, TrialEndedError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.definition import differences, surroundings_of
from phonefit.pipeline.search.local import WorkerProgress
from phonefit.pipeline.search.records import quiet_optuna
from phonefit.pipeline.search.screening import Screening
from phonefit.pipeline.search.shipping import Packed, pack
from phonefit.pipeline.search.trials import evaluation

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

RUNS = "PHONEFIT_RUNS"
"""Names the folder for results on a machine where it is another one than that of the search."""
TOKEN = "driver"


@dataclass(frozen=True)
class Snapshot:
    """What the study holds when a trial begins: its checks look at the other trials."""

    trials: Sequence["FrozenTrial"]
    directions: Sequence["StudyDirection"]

    def open(self, number: int) -> "Trial":
        """The trial of this number, in a copy of the study in memory."""
        import optuna

        study = optuna.create_study(directions=list(self.directions))
        for trial in self.trials:
            study.add_trial(trial)
        return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


@dataclass(frozen=True)
class Order:
    """One trial to run.

    Attributes:
        recipe: with the values of the trial; searched: without them.
        runs: the runs folder of the search.
        own: as of `search`.
        surroundings: what has to be the same on every machine.
        known: keys of the stage results that need not be sent back.
        token: content of a file in the folder of the search, by which a task finds that it sees the same folder.
    """

    number: int
    recipe: Recipe
    searched: Recipe
    runs: Path
    own: Callable[[Recipe], TrialResult] | None
    surroundings: Mapping[str, JsonValue]
    snapshot: Snapshot
    known: frozenset[str]
    token: str


@dataclass(frozen=True)
class Answer:
    """How a trial went. Not every error can be sent, so only what is needed of it is.

    Attributes:
        attributes, constraints, reports: what the checks noted in the trial.
        packed: the stage results that the machine of the search lacks.
    """

    machine: str
    result: TrialResult | None = None
    failure: str = ""
    exit_code: int = PhonefitError.exit_code
    ended_by: str | None = None
    disk_failed: bool = False
    attributes: Mapping[str, JsonValue] | None = None
    constraints: Mapping[str, float] | None = None
    reports: Mapping[int, float] | None = None
    packed: Packed | None = None

    def outcome(self) -> TrialResult:
        """The result.

        Raises:
            TrialEndedError: a check ended the trial.
            StoreError: the folder for results on the other machine cannot be written.
            PhonefitError: the trial failed.
        """
        if self.result is not None:
            return self.result
        if self.ended_by is not None:
            raise TrialEndedError(self.ended_by, self.failure)
        if self.disk_failed:
            raise StoreError(f"on {self.machine}: {self.failure}")
        error = PhonefitError(self.failure)
        error.exit_code = self.exit_code
        raise error


def run_order(order: Order) -> Answer:
    """Run a trial on this machine."""
    machine = socket.gethostname()
    runs = Path(os.environ.get(RUNS, order.runs))
    with quiet_optuna(), taking_turns():
        trial = order.snapshot.open(order.number)
        before = dict(trial.user_attrs)
        try:
            _refuse_unlike(order, runs)
            checks = Screening(trial.study, trial, order.recipe)
            result = evaluation(order.own, runs, WorkerProgress())(order.recipe, checks)
            answer = Answer(machine, result, packed=_packed(order, runs, result))
        except TrialEndedError as error:
            answer = Answer(machine, failure=str(error), ended_by=error.check)
        except PhonefitError as error:
            broken = isinstance(error, StoreError)
            answer = Answer(machine, failure=str(error), exit_code=error.exit_code, disk_failed=broken)
        noted = {name: value for name, value in trial.user_attrs.items() if before.get(name) != value}
        frozen = trial.study.get_trials(deepcopy=False)[order.number]
        return replace(answer, attributes=noted, constraints=frozen.constraints, reports=frozen.intermediate_values)


def _packed(order: Order, runs: Path, result: TrialResult) -> Packed:
    token = runs / order.recipe.name / TOKEN
    shared = token.is_file() and token.read_text() == order.token
    return {} if shared or order.own is not None else pack(runs, result.stages, order.known)


def _refuse_unlike(order: Order, runs: Path) -> None:
    """Raises RecipeError where a trial on this machine could not be compared with the others."""
    if order.own is not None:
        return
    here = surroundings_of(order.searched, runs, WorkerProgress())
    different = list(differences(order.surroundings, here))
    if different:
        shown = "; ".join(f"{name} is {new} here, and {old} where the search runs" for name, old, new in different[:4])
        raise RecipeError(f"{socket.gethostname()} differs from the machine of the search: {shown}")
