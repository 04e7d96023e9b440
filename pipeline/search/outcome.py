"""What a study learns from a trial: figures of its best file, and the budget as constraints."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from phonefit.device_bench.device import MeasurementError
from phonefit.pipeline.budget import figures_of, margins
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.result import FileResult, TrialResult

UNSTEADY = frozenset({"latency_p90_ms", "energy_uj"})
"""Objectives and limits that a doubt about a measurement concerns; sizes, counts and quality are what they are."""


@dataclass(frozen=True)
class Outcome:
    """What the study is told.

    Attributes:
        values: in the order of the objectives.
        constraints: limit -> figure / limit - 1; 0 or less where the limit is met.
        reliable: no objective and no limit depends on a figure of a measurement that stayed untrusted.
        notes: the fields of SearchTrial that nothing is learned from: file, trusted, stages, seconds_saved.
    """

    values: tuple[float, ...]
    constraints: Mapping[str, float]
    reliable: bool
    notes: Mapping[str, JsonValue]


def outcome_of(result: TrialResult, objectives: Sequence[Objective], budget: BudgetConfig) -> Outcome:
    """Figures of the trial's best file.

    Raises:
        MeasurementError: it has no file, or a figure that an objective needs is missing.
    """
    file = best_of(result)
    reused = [stage for stage in result.stages if stage.reused]
    values = tuple(_figure(file, name, result.quality_name) for name in objectives)
    constraints = margins(figures_of(file), budget)
    return Outcome(
        values=values,
        constraints=constraints,
        reliable=file.report.trusted or UNSTEADY.isdisjoint({*objectives, *constraints}),
        notes={
            "file": file.name,
            "trusted": file.report.trusted,
            "stages_computed": len(result.stages) - len(reused),
            "stages_reused": len(reused),
            "seconds_saved": sum(stage.seconds for stage in reused),
        },
    )


def best_of(result: TrialResult) -> FileResult:
    """The file that speaks for a trial: its best one that fits, else the one nearest to the budget.

    The float original, made to compare with, speaks only for a trial that compresses nothing.

    Raises:
        MeasurementError: the trial made no file.
    """
    compressed = [file for file in result.files if file.variant == "compressed"]
    candidates = compressed or list(result.files)
    if not candidates:
        raise MeasurementError("the trial made no file; convert.runtimes must name at least one runtime")
    if result.best is not None and result.files[result.best] in candidates:
        return result.files[result.best]
    return min(candidates, key=lambda file: _rank(file, result.quality_name))


def _rank(file: FileResult, quality_name: str) -> tuple[float, float, float]:
    """Nearest to the budget first, then quality in whole points, then latency."""
    excess = sum(violation.excess for violation in file.violations)
    return excess, -round(file.quality[quality_name], 2), file.report.p90_milliseconds()


def _figure(file: FileResult, objective: Objective, quality_name: str) -> float:
    try:
        if objective == "quality":
            value = file.quality[quality_name]
        elif objective == "latency_p90_ms":
            value = file.report.p90_milliseconds()
        elif objective == "bytes":
            value = float(file.artifact.bytes)
        elif objective == "energy_uj":
            value = file.report.energy_microjoules() or math.nan
        elif objective == "instructions":
            value = statistics.median(file.report.figures["instructions"].samples)
        else:
            value = file.report.peak_memory_bytes()
    except (KeyError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise MeasurementError(
            f"{file.name} has no figure for the objective {objective}; leave it out of search.objectives, "
            "or measure on a device that provides it"
        )
    return value
