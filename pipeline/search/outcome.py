"""What a study learns from a trial: figures of its best file, and the budget as constraints."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from phonefit.device_bench.device import MeasurementError
from phonefit.device_bench.devices import kind_of
from phonefit.device_bench.report import Report
from phonefit.pipeline.budget import figures_of, margins
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.result import FileResult, TrialResult
from phonefit.pipeline.search.savings import stage_seconds

UNSTEADY = frozenset({"latency_p90_ms", "energy_uj"})
"""Objectives and limits that a doubt about a measurement concerns; sizes, counts and quality are what they are."""


@dataclass(frozen=True)
class Outcome:
    """What the study is told.

    Attributes:
        values: in the order of the objectives.
        constraints: limit -> figure / limit - 1; 0 or less where the limit is met.
        reliable: no objective and no limit depends on a figure of a measurement that stayed untrusted on any device.
        notes: the fields of SearchTrial that nothing is learned from: file, trusted, stages, seconds, latencies.
    """

    values: tuple[float, ...]
    constraints: Mapping[str, float]
    reliable: bool
    notes: Mapping[str, JsonValue]


def outcome_of(
    result: TrialResult,
    objectives: Sequence[Objective],
    budget: BudgetConfig,
    weights: Sequence[float] | None = None,
) -> Outcome:
    """Figures of the trial's best file.

    Args:
        weights: of each device, in the order of the recipe, for the mean of a figure over devices; None: the worst
            counts.

    Raises:
        MeasurementError: it has no file, or a figure that an objective needs is missing.
    """
    file = best_of(result)
    reused = [stage for stage in result.stages if stage.reused]
    values = tuple(_figure(file, name, result.merit(file.quality), weights) for name in objectives)
    constraints = margins(figures_of(file), budget)
    return Outcome(
        values=values,
        constraints=constraints,
        reliable=file.trusted or UNSTEADY.isdisjoint({*objectives, *constraints}),
        notes={
            "file": file.name,
            "trusted": file.trusted,
            "stages_computed": len(result.stages) - len(reused),
            "stages_reused": len(reused),
            "seconds_saved": sum(stage.seconds for stage in reused),
            "stage_seconds": dict(stage_seconds(result)),
            "latencies": {one.name: one.report.p90_milliseconds() for one in _timed(result)},
        },
    )


def counts_alone(recipe: Recipe) -> bool:
    """Whether the trial is measured on nothing but one device that counts: what it counts is then the objective."""
    return len(recipe.bench.devices) == 1 and kind_of(recipe.bench.devices[0])[0].counts


def devices_in_words(recipe: Recipe) -> str:
    """How figures of several devices become one of a trial; "" for one device."""
    devices, weights = recipe.bench.devices, recipe.device_weights
    if len(devices) == 1:
        return ""
    if weights is None:
        return f"worst of {', '.join(devices)}"
    pairs = [f"{share:g} x {name}" for name, share in zip(devices, weights, strict=True) if share > 0]
    return f"mean of {', '.join(pairs)}"


def _timed(result: TrialResult) -> list[FileResult]:
    """Files whose latency can be learned from: it is that of one device."""
    alone = [file for file in result.files if not file.further_reports]
    return [file for file in alone if file.trusted and not file.report.out_of_memory]


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
    return min(candidates, key=lambda file: _rank(file, result.merit(file.quality)))


def _rank(file: FileResult, merit: float) -> tuple[float, float, float]:
    """Nearest to the budget first, then quality in whole points, or an error with two digits, then latency."""
    excess = sum(violation.excess for violation in file.violations)
    rounded = round(merit, 2) if merit >= 0 else float(f"{merit:.2g}")
    return excess, -rounded, file.p90_milliseconds


def _figure(file: FileResult, objective: Objective, merit: float, weights: Sequence[float] | None) -> float:
    """One figure of the file over its devices. Quality and bytes are those of the file, wherever it runs."""
    if objective == "quality":
        return merit
    if objective == "bytes":
        return float(file.artifact.bytes)
    figures = [_on_device(report, objective) for report in file.reports]
    shares = [1.0] * len(figures) if weights is None else weights
    found = [(figure, share) for figure, share in zip(figures, shares, strict=True) if share > 0]
    if objective == "instructions":  # the same on all devices: those that do not count do not matter
        found = [(figure, share) for figure, share in found if math.isfinite(figure)]
    if not found or not all(math.isfinite(figure) for figure, _ in found):
        raise MeasurementError(
            f"{file.name} has no figure for the objective {objective}; leave it out of search.objectives, "
            "or measure on a device that provides it"
        )
    if weights is None:
        return max(figure for figure, _ in found)
    return sum(figure * share for figure, share in found) / sum(share for _, share in found)


def _on_device(report: Report, objective: Objective) -> float:
    """A figure of one measurement; NaN or infinite where there is none."""
    try:
        if objective == "latency_p90_ms":
            return report.p90_milliseconds()
        if objective == "energy_uj":
            return report.energy_microjoules() or math.nan
        if objective == "instructions":
            return statistics.median(report.figures["instructions"].samples)
        return report.peak_memory_bytes()
    except (KeyError, ValueError):
        return math.nan
