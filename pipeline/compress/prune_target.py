"""The target of pruning: how far to go so that multiply-adds, bytes, or a figure of the device are met."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import nn

from phonefit.device_bench.report import Report
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.context import AskDevice, Context
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import PruneConfig, PruneGoal

ASKS = 6
"""At most so many candidates are measured for one step, the unpruned network included."""
SLACK = 0.02
"""A candidate this share below the target is close enough, and this share is aimed below it."""


def fewest_blocks(cost: Callable[[int], float], count: int, limit: float) -> int:
    """Fewest blocks 0..`count` whose removal brings the cost to `limit` or below; `count` where none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= limit else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Asked:
    """One answer of the device.

    Attributes:
        blocks: how many blocks the candidate lacks; -1 for a network before an earlier step.
        multiply_adds: of the candidate.
        figure: milliseconds or instructions; infinite where the candidate did not fit into the memory.
    """

    blocks: int
    multiply_adds: float
    figure: float


def search_by_asking(
    ask: Callable[[int], float], work: Callable[[int], float], count: int, target: float, known: Asked, asks: int
) -> list[Asked]:
    """Measure candidates until the fewest blocks that meet the target are found, or nearly so.

    The next candidate is where a line through what is known, over multiply-adds, meets the target; a bracket that
    the line cannot shrink is halved. The last ask goes to the smallest network if nothing has met the target before.

    Args:
        ask: figure of the network without so many blocks.
        work: multiply-adds of it.
        known: an answer that is above the target.
        asks: how many may be asked.

    Returns:
        The answers, in order. No answer meets the target if the smallest network does not.
    """
    answers: list[Asked] = []
    low = known
    earlier: Asked | None = None
    high: Asked | None = None
    while len(answers) < asks:
        bottom, top = low.blocks + 1, count if high is None else high.blocks - 1
        if bottom > top or (high is not None and high.figure >= (1 - SLACK) * target):
            break
        place = count
        if high is not None or len(answers) < asks - 1:
            aim = _where(low, high or earlier, (1 - SLACK / 2) * target)
            place = (bottom + top) // 2 if aim is None else fewest_blocks(work, count, aim)
            if place >= top and high is not None:
                place = (bottom + top) // 2
            place = min(max(place, bottom), top)
        answers.append(Asked(place, work(place), ask(place)))
        if answers[-1].figure <= target:
            high = answers[-1]
        else:
            low, earlier = answers[-1], low
            if place == count:
                break
    return answers


def _where(first: Asked, second: Asked | None, figure: float) -> float | None:
    """Multiply-adds at which a line through one or two answers has this figure; None where it says nothing."""
    if second is None:  # as if all the time were spent on them
        return first.multiply_adds * figure / first.figure
    if first.multiply_adds == second.multiply_adds:
        return None
    slope = (first.figure - second.figure) / (first.multiply_adds - second.multiply_adds)
    return first.multiply_adds + (figure - first.figure) / slope if 0 < slope < float("inf") else None


@dataclass(frozen=True)
class Inquiry:
    """Asks the device about candidates of one step, and keeps a line about each answer."""

    ask: AskDevice
    goal: PruneGoal
    checkpoint: Checkpoint
    context: Context
    lines: list[str]

    def figure(self, network: nn.Module, multiply_adds: float) -> float:
        """Median latency in milliseconds, or instructions of an inference. Infinite: it did not fit into the memory.

        Raises:
            RecipeError: the device does not count instructions.
            ConversionError, DeviceError, MeasurementError: the candidate cannot be converted or measured.
        """
        plain = self.checkpoint.info.model_copy(update={"metrics": {}, "lineage": ()})
        with tempfile.TemporaryDirectory(prefix="phonefit-candidate-") as folder:
            report = self.ask(Checkpoint.save(Path(folder), network, plain))
        value = figure_of(report, self.goal)
        doubt = "" if report.trusted else f", not trusted: {report.untrusted[0].reason}"
        name = f"asked {report.device.name}, {report.runtime}"
        self.lines.append(f"{name}: {shown(value, self.goal)} at {multiply_adds:,.0f} multiply-adds{doubt}")
        return value


def figure_of(report: Report, goal: PruneGoal) -> float:
    """The figure of a report that the goal is about; infinite when the memory limit ended the process.

    Raises:
        RecipeError: the device does not count instructions.
    """
    if report.out_of_memory:
        return float("inf")
    if goal == "latency_ms":
        return report.median_milliseconds()
    figure = report.figures.get("instructions")
    if figure is None or not figure.samples:
        raise RecipeError(f"prune: instructions: {report.device.name} does not count instructions; use latency_ms")
    return median(figure.samples)


def shown(value: float, goal: PruneGoal) -> str:
    """A value with its unit."""
    return f"{value:.4g} ms" if goal == "latency_ms" else f"{value:,.0f} {goal.replace('_', '-')}"


def unreachable(goal: PruneGoal, target: float, smallest: float, config: PruneConfig) -> RecipeError:
    """The target cannot be met."""
    return RecipeError(
        f"prune: the target of {shown(target, goal)} cannot be met: without all that may go, {shown(smallest, goal)} "
        f"remain; aim higher, raise layer_limit ({config.layer_limit}), lower round_to ({config.round_to}), "
        "take layers out of keep, or start from a smaller model"
    )
