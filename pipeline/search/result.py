"""What a search gives: every trial, the Pareto front, and how much work was not done twice."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from phonefit.models.record import Frozen, Record
from phonefit.pipeline.recipe_search import Objective

Direction = Literal["maximize", "minimize"]
DIRECTIONS: Mapping[Objective, Direction] = {
    "quality": "maximize",
    "latency_p90_ms": "minimize",
    "bytes": "minimize",
    "peak_memory": "minimize",
    "instructions": "minimize",
    "energy_uj": "minimize",
}

State = Literal["complete", "ended", "failed", "refused", "duplicate", "interrupted", "running"]
TAKEN: tuple[State, ...] = ("complete", "ended", "failed")
"""A trial that counts, and whose point is not tried again."""


class SearchTrial(Frozen):
    """One trial of a study.

    Attributes:
        state: complete; ended (early, by a check of the search: see `reason`); failed (see `reason`); refused (its
            values exclude each other: nothing was run); duplicate (a point that was tried before, not evaluated again);
            interrupted (killed, or stopped by a repeated failure; its point is tried again); running.
        parameters: recipe path -> value.
        values: objective -> figure of the trial's best file; None unless complete. A quality that is an error is there
            as minus the error.
        constraints: limit of the budget -> by how much it is missed, as a share of the limit; 0 or less: it is met.
        file: name of the file that the figures belong to.
        test_quality: quality of that file on the test side; only on the Pareto front, at the end.
        trusted: nothing speaks against the measurement of that file.
        learned: the sampler learns from it. False where an objective or a limit depends on an untrusted measurement
            and search.untrusted is ignore; such a trial takes no other one off the Pareto front.
        seconds_saved: what the reused stages had cost.
        stage_seconds: stage -> what it took, then or now; of fine-tuning what an epoch took.
        latencies: file -> p90 in ms, of the files whose measurement can be trusted.
        ended_by: the check that ended the trial early.
        avoided: what an ended trial did not do: stage -> 1, of fine-tuning the epochs.
        seconds_avoided: what that would have taken, estimated from the trials that did it; None: there is none.
        seconds_checking: what the checks took.
        duplicate_of: number of the first trial of the same point.
    """

    number: int
    state: State
    parameters: Mapping[str, JsonValue]
    values: Mapping[Objective, float] | None = None
    constraints: Mapping[str, float] = {}
    reason: str | None = None
    file: str | None = None
    test_quality: float | None = None
    trusted: bool = True
    learned: bool = True
    stages_computed: int = 0
    stages_reused: int = 0
    seconds_saved: float = 0.0
    stage_seconds: Mapping[str, float] = {}
    latencies: Mapping[str, float] = {}
    ended_by: str | None = None
    avoided: Mapping[str, float] = {}
    seconds_avoided: float | None = None
    seconds_checking: float = 0.0
    duplicate_of: int | None = None

    @property
    def feasible(self) -> bool:
        """Whether the trial is complete and meets every limit."""
        return self.values is not None and all(value <= 0 for value in self.constraints.values())


class SearchResult(Record):
    """Content of search.json.

    Attributes:
        trials: in the order of their numbers.
        pareto: numbers of the feasible trials that no other feasible trial beats; see `pareto_front`.
        note: why the search ended before its number of trials, if it did.
        devices: how figures of several devices become one; "" for one device.
    """

    schema_number: int = 1
    name: str
    sampler: str
    objectives: tuple[Objective, ...]
    trials: tuple[SearchTrial, ...]
    pareto: tuple[int, ...]
    note: str = ""
    devices: str = ""

    @property
    def stages_computed(self) -> int:
        """Stages that the trials had to compute."""
        return sum(trial.stages_computed for trial in self.trials)

    @property
    def stages_reused(self) -> int:
        """Stages that were in the store already."""
        return sum(trial.stages_reused for trial in self.trials)

    @property
    def seconds_saved(self) -> float:
        """What the reused stages had cost when they were computed."""
        return sum(trial.seconds_saved for trial in self.trials)

    @property
    def seconds_avoided(self) -> float:
        """What ended trials would have taken, as far as it can be estimated."""
        return sum(trial.seconds_avoided or 0.0 for trial in self.trials)

    @property
    def seconds_checking(self) -> float:
        """What the checks took that end trials."""
        return sum(trial.seconds_checking for trial in self.trials)


def pareto_front(trials: Sequence[SearchTrial], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Numbers of the feasible trials that no other feasible trial dominates.

    A trial dominates another when it is at least as good in every objective and better in one. Of trials with equal
    figures all stay. One with untrusted figures dominates only others of its kind.
    """
    costs = {
        trial.number: costs_of(trial.values, objectives)
        for trial in trials
        if trial.feasible and trial.values is not None
    }
    learned = {trial.number for trial in trials if trial.learned}
    return tuple(
        number
        for number, cost in costs.items()
        if not any(
            dominates(other, cost) for rival, other in costs.items() if rival in learned or number not in learned
        )
    )


def reliable_trials(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """The trials that fit the budget and whose figures can be trusted; where there is none, all that seem to fit."""
    fitting = [trial for trial in trials if trial.feasible]
    return [trial for trial in fitting if trial.learned] or fitting


def costs_of(values: Mapping[Objective, float], objectives: Sequence[Objective]) -> list[float]:
    """Values in the order of the objectives, so that less is better."""
    return [-values[name] if DIRECTIONS[name] == "maximize" else values[name] for name in objectives]


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first costs are nowhere higher than the second, and somewhere lower."""
    return first != second and all(one <= other for one, other in zip(first, second, strict=True))
