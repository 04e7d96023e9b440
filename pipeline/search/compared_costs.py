"""What a network costs on a device that counts, told by networks of the same study that do no more, or no less.

A network that does no less of any kind of work than another one, in the same format, is taken to cost no less. Kernels
that work on blocks of channels make that almost true, not quite: hence the slack.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from phonefit.pipeline.budget import Figures
from phonefit.pipeline.search.latency_predictor import LayerSums

SLACK = 0.2
"""By this share a network may cost less than one that does no more: twice what benchmarks/search_demo.py saw."""


@dataclass(frozen=True)
class Costs:
    """What one converted network cost.

    Attributes:
        format: runtime and precision; only files of the same one compare.
        sums: multiply-adds and moved elements by kind of layer.
        milliseconds: estimated from the counts; `energy` in microjoules likewise, None where there is none.
    """

    format: str
    sums: LayerSums
    instructions: float
    milliseconds: float
    energy: float | None

    def onto(self, figures: Figures, share: float) -> Figures:
        """The figures with this share of what was counted."""
        return replace(
            figures,
            instructions=self.instructions * share,
            latency_p90=self.milliseconds * share,
            energy=None if self.energy is None else self.energy * share,
        )


def at_least(figures: Figures, file_format: str, sums: LayerSums, known: Sequence[Costs]) -> Figures:
    """The figures with the counts of the costliest network that does no more than one of these sums."""
    below = [costs for costs in known if costs.format == file_format and _no_more(costs.sums, sums)]
    if not below:
        return figures
    return max(below, key=lambda costs: costs.instructions).onto(figures, 1 / (1 + SLACK))


def at_most(figures: Figures, file_format: str, sums: LayerSums, known: Sequence[Costs]) -> Figures:
    """The figures with the counts of the cheapest network that does no less; infinite ones where there is none."""
    above = [costs for costs in known if costs.format == file_format and _no_more(sums, costs.sums)]
    if not above:
        return replace(figures, latency_p90=math.inf, energy=math.inf, instructions=math.inf)
    return min(above, key=lambda costs: costs.instructions).onto(figures, 1 + SLACK)


def _no_more(less: LayerSums, more: LayerSums) -> bool:
    return all(more.get(name, 0.0) >= value for name, value in less.items())
