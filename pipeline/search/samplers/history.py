"""What a study holds, as arrays over the axes: what a surrogate learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from phonefit.pipeline.search.samplers.axes import Axis, Floats


@dataclass(frozen=True)
class History:
    """What the study holds.

    Attributes:
        points: of trials with values: float64 [n, axes].
        losses: to be minimised: float64 [n, objectives].
        constraints: at most 0 where they hold: float64 [n, constraints].
        missed: for each constraint, points of trials that were pruned without a value, and by how much they miss it:
            float64 [m, axes], float64 [m].
        running: points of trials that run: float64 [m, axes].
        known: every point that was begun, failed ones too.
    """

    points: Floats
    losses: Floats
    constraints: Floats
    missed: tuple[tuple[Floats, Floats], ...]
    running: Floats
    known: Floats

    def feasible(self) -> NDArray[np.bool_]:
        """Which of the points keep all constraints: bool [n]."""
        held: NDArray[np.bool_] = np.all(self.constraints <= 0, axis=1)
        return held


def history_of(study: Study, current: FrozenTrial, axes: Sequence[Axis]) -> History:
    """What the study holds beside the current trial, of trials that have all the axes."""
    signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in study.directions])
    points, losses, limits, pruned, running, known = [], [], [], [], [], []
    for trial in study.get_trials(deepcopy=False):
        if trial.number == current.number or any(axis.name not in trial.params for axis in axes):
            continue
        try:
            point = [axis.encode(trial.params[axis.name]) for axis in axes]
        except ValueError:  # the space has changed since
            continue
        known.append(point)
        values = _values(trial)
        if values is not None and np.isfinite(values).all():
            points.append(point)
            losses.append(signs * values)
            limits.append(trial.constraints)
        elif trial.state == TrialState.PRUNED:
            pruned.append((point, trial.constraints))
        elif trial.state == TrialState.RUNNING:
            running.append(point)
    names = sorted({name for each in [*limits, *(held for _, held in pruned)] for name in each})
    constraints = [[each.get(name, 0.0) for name in names] for each in limits]
    shape = (-1, len(axes))
    missed = []
    for name in names:
        of = [(point, held[name]) for point, held in pruned if name in held]
        missed.append((np.array([point for point, _ in of]).reshape(shape), np.array([excess for _, excess in of])))
    return History(
        np.array(points, dtype=np.float64).reshape(shape),
        np.array(losses, dtype=np.float64).reshape(-1, len(signs)),
        np.array(constraints, dtype=np.float64).reshape(len(points), len(names)),
        tuple(missed),
        np.array(running, dtype=np.float64).reshape(shape),
        np.array(known, dtype=np.float64).reshape(shape),
    )


def _values(trial: FrozenTrial) -> Floats | None:
    if trial.state == TrialState.COMPLETE:
        return np.array(trial.values, dtype=np.float64)
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        return np.array([trial.intermediate_values[max(trial.intermediate_values)]])
    return None
