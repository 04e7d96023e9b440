"""When a trial cannot matter any more: the best that its files can still be misses the budget, or is dominated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from phonefit.pipeline.budget import Figures, describe, margins, violations
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.search.result import SearchTrial, costs_of, dominates


@dataclass(frozen=True)
class Bounds:
    """The best that a file can still turn out to be.

    Attributes:
        name: of the file, for the reason.
        figures: none of them will be lower; 0 for what nothing is known of.
        quality: it will not be higher; infinite where nothing is known.
    """

    name: str
    figures: Figures
    quality: float

    def at_least(self, milliseconds: float) -> "Bounds":
        """The same with a latency that is not below that."""
        latency = max(self.figures.latency_p90, milliseconds)
        return replace(self, figures=replace(self.figures, latency_p90=latency))

    def values(self) -> dict[Objective, float]:
        """The bound of each objective."""
        figures = self.figures
        return {
            "quality": self.quality,
            "latency_p90_ms": figures.latency_p90,
            "bytes": figures.bytes,
            "peak_memory": figures.peak_memory,
            "instructions": figures.instructions or 0.0,
            "energy_uj": figures.energy or 0.0,
        }


def lowered(figures: Figures, slack: float) -> Figures:
    """Figures that may be too high by a share of `slack`, so low that they are not."""
    share = 1 / (1 + slack)
    return replace(
        figures,
        bytes=figures.bytes * share,
        peak_memory=figures.peak_memory * share,
        latency_p90=figures.latency_p90 * share,
        energy=None if figures.energy is None else figures.energy * share,
        instructions=None if figures.instructions is None else figures.instructions * share,
    )


def reason_to_end(
    files: Sequence[Bounds], objectives: Sequence[Objective], budget: BudgetConfig, trials: Sequence[SearchTrial]
) -> str | None:
    """Why a trial with these files cannot reach the Pareto front; None where one of them still could.

    Args:
        files: all that could speak for the trial.
        trials: the others of the study. Only those that fit the budget and are learned from can dominate.
    """
    reasons = [_against(file, objectives, budget, trials) for file in files]
    if not files or any(reason is None for reason in reasons):
        return None
    return "; ".join(f"{file.name}: {reason}" for file, reason in zip(files, reasons, strict=True))


def missed_by(files: Sequence[Bounds], budget: BudgetConfig) -> dict[str, float]:
    """Limit -> by which share the file that is nearest to the budget misses it at least."""
    missed = [{name: excess for name, excess in margins(file.figures, budget).items() if excess > 0} for file in files]
    return min(missed, key=lambda excesses: sum(excesses.values()), default={})


def _against(
    file: Bounds, objectives: Sequence[Objective], budget: BudgetConfig, trials: Sequence[SearchTrial]
) -> str | None:
    if missed := violations(file.figures, budget):
        return f"at best {describe(missed[0])}"
    values = file.values()
    best = costs_of(values, objectives)
    for rival in trials:
        if rival.feasible and rival.learned and rival.values and dominates(costs_of(rival.values, objectives), best):
            return f"at best dominated by trial {rival.number}"
    return None
