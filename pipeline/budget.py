"""The budget: limits and figures in, violations out; and the choice of the best file that fits. Pure functions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pydantic import ByteSize, TypeAdapter, ValidationError

from phonefit.device_bench.device import MeasurementError
from phonefit.device_bench.report import Report
from phonefit.models.tasks.task import Better, merit_of
from phonefit.pipeline.errors import BudgetError, RecipeError
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.result import FileResult, Violation


@dataclass(frozen=True)
class Figures:
    """What the budget looks at.

    Attributes:
        peak_memory: bytes above an empty process of the runtime.
        latency_p90: milliseconds.
        quality_drop: what was lost of the original checkpoint's quality; see `drop_of` of the tasks.
        drop_is_growth: the quality is an error, and the drop its growth.
        out_of_memory: the device's memory limit ended the process; how much it would have needed is not known.
        energy: microjoules of one inference; None when the device gave no figure.
        energy_source: "measured" or "modelled"; why there is none when `energy` is None.
        instructions: of one inference; None when the device does not count them.
    """

    bytes: float
    peak_memory: float
    latency_p90: float
    quality_drop: float
    out_of_memory: bool = False
    energy: float | None = None
    energy_source: str = "not measured"
    instructions: float | None = None
    drop_is_growth: bool = False


NORMAL_95 = 1.96  # half of a 95 % interval in standard errors
TOLERANCE = 1e-9
"""Rounding of a figure that meets its limit exactly."""

REMEDIES = {
    "ram": "quantise, prune, or take a smaller input size; or raise budget.ram_share",
    "peak_memory": "quantise, prune, or take a smaller input size",
    "file_size": "quantise, prune with a higher ratio, or a smaller model (model.width)",
    "latency_p90_ms": "another runtime, quantise, prune, a smaller input size, or more bench.threads",
    "energy_uj": "another runtime, quantise, prune, or a smaller input size",
    "instructions": "another runtime, quantise, prune, or a smaller input size",
    "quality_drop": "a lower prune ratio, more recover.epochs, distil, or float_layers in quantise",
}


NOTHING = Figures(0, 0, 0, 0, energy=0, instructions=0)


def limits_of(budget: BudgetConfig) -> dict[str, float]:
    """Name -> limit, of those that are given; "ram" is the share of the RAM that the model may use, in bytes."""
    return {name: limit for name, limit, _, _ in _limits(NOTHING, budget)}


def figures_under(figures: Figures, budget: BudgetConfig) -> dict[str, float]:
    """Name of the limit -> figure that it is about, for each limit that is given."""
    return {name: figure for name, _, figure, _ in _limits(figures, budget)}


def memory_limit(budget: BudgetConfig) -> int | None:
    """Bytes that the process may use where a device enforces it: the lower of ram x ram_share and peak_memory."""
    limits = [limit for name, limit, _, _ in _limits(NOTHING, budget) if name in ("ram", "peak_memory")]
    return int(min(limits)) if limits else None


def figures_of(file: FileResult) -> Figures:
    """The figures of one file of a trial; on several devices the worst of each."""
    figures = worst([figures_of_report(report, file.artifact.bytes, file.quality_drop) for report in file.reports])
    return replace(figures, drop_is_growth=file.drop_is_growth)


def worst(figures: Sequence[Figures]) -> Figures:
    """The worst of each figure over devices: a limit that it meets holds on all of them.

    The energy is unknown where one device gives none. Instructions are the same on all: one that counts will do.
    """
    hungriest = max(figures, key=lambda one: math.inf if one.energy is None else one.energy)
    counted = [one.instructions for one in figures if one.instructions is not None]
    return replace(
        hungriest,
        peak_memory=max(one.peak_memory for one in figures),
        latency_p90=max(one.latency_p90 for one in figures),
        out_of_memory=any(one.out_of_memory for one in figures),
        instructions=max(counted, default=None),
    )


def figures_of_report(report: Report, size: int | None = None, quality_drop: float = 0.0) -> Figures:
    """The figures of one measured file, whose size is that of the report where it is not given."""
    figures = Figures(
        report.model_bytes if size is None else size,
        report.peak_memory_bytes(),
        report.p90_milliseconds(),
        quality_drop,
    )
    counted = report.figures.get("instructions")
    if counted is not None and counted.samples:
        figures = replace(figures, instructions=median(counted.samples))
    energy = report.figures.get("energy")
    if energy is None:
        return replace(figures, out_of_memory=report.out_of_memory)
    return replace(
        figures,
        out_of_memory=report.out_of_memory,
        energy=report.energy_microjoules(),
        energy_source=energy.note if energy.source == "unavailable" else energy.source,
    )


def margins(figures: Figures, budget: BudgetConfig) -> dict[str, float]:
    """Limit -> figure / limit - 1, for each limit that is given: 0 or less where it is met.

    For a limit of 0 it is the figure itself.
    """
    excess = {name: figure / limit - 1 if limit > 0 else figure for name, limit, figure, _ in _limits(figures, budget)}
    if figures.out_of_memory:  # it would have needed more than it reached, nobody knows how much
        excess |= {name: 1.0 for name in ("ram", "peak_memory") if name in excess}
        for name in ("latency_p90_ms", "energy_uj", "instructions"):
            excess.pop(name, None)
    return {name: 0.0 if abs(value) <= TOLERANCE else value for name, value in excess.items()}


def violations(figures: Figures, budget: BudgetConfig) -> tuple[Violation, ...]:
    """The limits that are missed, worst first."""
    excess = margins(figures, budget)
    missed = [
        Violation(limit_name=name, limit=limit, figure=figure, unit=unit, excess=excess[name], remedy=REMEDIES[name])
        for name, limit, figure, unit in _limits(figures, budget)
        if excess.get(name, 0.0) > 0
    ]
    return tuple(sorted(missed, key=lambda violation: -violation.excess))


def missed_on(devices: Sequence[str], file: FileResult, budget: BudgetConfig) -> tuple[Violation, ...]:
    """The limits that a file misses on any of the devices, worst first.

    Args:
        devices: names, in the order of the file's reports.
    """
    missed = violations(figures_of(file), budget)
    if len(devices) == 1:
        return missed
    alone = [figures_of_report(report) for report in file.reports]
    named = []
    for violation in missed:
        if figure := _OF_DEVICE.get(violation.limit_name):
            device, _ = max(zip(devices, alone, strict=True), key=lambda pair: figure(pair[1]))
            violation = violation.model_copy(update={"device": device})
        named.append(violation)
    return tuple(named)


def _memory_needed(figures: Figures) -> float:
    return math.inf if figures.out_of_memory else figures.peak_memory


_OF_DEVICE: Mapping[str, Callable[[Figures], float]] = {
    "ram": _memory_needed,
    "peak_memory": _memory_needed,
    "latency_p90_ms": lambda figures: figures.latency_p90,
    "energy_uj": lambda figures: figures.energy or 0.0,
}
"""Limits on figures that differ from device to device."""


def _limits(figures: Figures, budget: BudgetConfig) -> list[tuple[str, float, float, str]]:
    """Name, limit, figure and unit of each limit that is given.

    Raises:
        MeasurementError: energy is limited, and the device gave no figure: neither met nor missed.
    """
    app_memory = None if budget.ram is None else float(budget.ram) * budget.ram_share
    limits: list[tuple[str, float | None, float, str]] = [
        ("ram", app_memory, figures.peak_memory, "bytes"),
        ("peak_memory", budget.peak_memory, figures.peak_memory, "bytes"),
        ("file_size", budget.file_size, figures.bytes, "bytes"),
        ("latency_p90_ms", budget.latency_p90_ms, figures.latency_p90, "ms"),
        ("energy_uj", budget.energy_uj, _energy_of(figures, budget), f"uJ ({figures.energy_source})"),
        ("instructions", budget.instructions, _instructions_of(figures, budget), "instructions"),
        ("quality_drop", budget.quality_drop, figures.quality_drop, "growth" if figures.drop_is_growth else "share"),
    ]
    return [(name, float(limit), figure, unit) for name, limit, figure, unit in limits if limit is not None]


def _energy_of(figures: Figures, budget: BudgetConfig) -> float:
    if figures.energy is not None:
        return figures.energy
    if budget.energy_uj is None or figures.out_of_memory:
        return math.inf
    raise MeasurementError(
        f"budget.energy_uj = {budget.energy_uj:g} cannot be checked: {figures.energy_source}; set bench.energy=true "
        "on a phone that tells its power, count on emulator:counts, or leave the limit out"
    )


def _instructions_of(figures: Figures, budget: BudgetConfig) -> float:
    if figures.instructions is not None:
        return figures.instructions
    if budget.instructions is None or figures.out_of_memory:
        return math.inf
    raise MeasurementError(
        f"budget.instructions = {budget.instructions} cannot be checked: the device counted none; measure on "
        "emulator:counts, or leave the limit out"
    )


def best_file(files: Sequence[FileResult], quality_name: str, samples: int, better: Better = "higher") -> int | None:
    """Index of the best file that fits the budget, or None.

    Of the files that fit, those within one standard error of the best quality count as equally good (Breiman et al.,
    Classification and Regression Trees, 1984, section 3.4.3), since a difference below it is noise; of them the one
    with the lowest p90 latency wins; of several devices that on the slowest.

    Args:
        samples: how many pictures the quality was judged on.
        better: whether more of the quality is better, or less.
    """
    fitting = [index for index, file in enumerate(files) if not file.violations]
    if not fitting:
        return None
    merits = {index: merit_of(better, files[index].quality[quality_name]) for index in fitting}
    best = max(fitting, key=merits.__getitem__)
    tolerance = _standard_error(files[best].quality, quality_name, samples)
    good = [index for index in fitting if merits[index] >= merits[best] - tolerance]
    return min(good, key=lambda index: files[index].p90_milliseconds)


def _standard_error(quality: Mapping[str, float], name: str, samples: int) -> float:
    """From the interval of 95 % where there is one; else of a share of so many pictures."""
    if f"{name}_low" in quality:
        return (quality[f"{name}_high"] - quality[f"{name}_low"]) / (2 * NORMAL_95)
    share = min(max(quality[name], 0.0), 1.0)
    return math.sqrt(share * (1 - share) / max(1, samples))


def nothing_fits(files: Sequence[FileResult]) -> BudgetError:
    """The error to raise when no file fits: for each file, what is missed by how much, and what would help."""
    ranked = sorted(files, key=lambda file: sum(violation.excess for violation in file.violations))
    lines = [f"no file fits the budget; the nearest is {ranked[0].name}:"]
    lines += [f"  {describe(violation)}; what would help: {violation.remedy}" for violation in ranked[0].violations]
    for file in ranked[1:]:
        lines.append(f"{file.name}: " + ", ".join(describe(violation) for violation in file.violations))
    return BudgetError("\n".join(lines))


def describe(violation: Violation) -> str:
    """One violation in words."""
    if violation.unit == "bytes":
        limit, figure = f"{violation.limit / 1e6:.2f} MB", f"{violation.figure / 1e6:.2f} MB"
    elif violation.unit == "share":
        limit, figure = f"{violation.limit * 100:.2f} points", f"{violation.figure * 100:.2f} points"
    elif violation.unit == "growth":
        limit, figure = f"{violation.limit:+.2%} of the error", f"{violation.figure:+.2%}"
    elif violation.unit == "instructions":
        limit, figure = f"{violation.limit:,.0f}", f"{violation.figure:,.0f}"
    elif violation.unit.startswith("uJ"):
        limit, figure = f"{violation.limit:,.0f} {violation.unit}", f"{violation.figure:,.0f} {violation.unit}"
    else:
        limit, figure = f"{violation.limit:.3g} {violation.unit}", f"{violation.figure:.3g} {violation.unit}"
    where = f" on {violation.device}" if violation.device else ""
    return f"{violation.limit_name}: {figure}{where}, limit {limit}, missed by {violation.excess * 100:.0f} %"


def parse_bytes(text: str) -> int:
    """Bytes from words such as "24MB" or "1.5GiB".

    Raises:
        RecipeError: it is not a size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise RecipeError(f"{text!r} is not a size; write it as 24MB, 6GB or 512MiB") from None
