"""What one instruction or one cache miss costs, to model the energy of an inference from exact counts.

The table in energy_costs.json is published energies per operation, each with its source. It is a model of one core, its
caches and its DRAM: neither the display, nor the rest of the chip, nor leakage while waiting, nor the battery's losses
are in it. It serves to compare files that do alike work; its absolute values are no more than an order of magnitude.
"""

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator

from phonefit.device_bench.device import EnergyEstimate
from phonefit.device_bench.energy import EnergyUnavailableError, modelled
from phonefit.models.record import Frozen

COSTS_FILE = Path(__file__).with_name("energy_costs.json")


class EnergyCosts(Frozen):
    """Cost of one of each, in pJ.

    Attributes:
        origin: in short, for the notes of figures.
        picojoules: count, by its name in reports -> cost of one.
        sources: where each cost is from.
    """

    origin: str
    picojoules: Mapping[str, float]
    sources: Mapping[str, str]

    @model_validator(mode="after")
    def _has_sources(self) -> Self:
        if self.picojoules.keys() != self.sources.keys() or min(self.picojoules.values()) < 0:
            raise ValueError("each cost must be 0 or more and have a source")
        return self


@functools.cache
def energy_costs() -> EnergyCosts:
    """The packaged table."""
    return EnergyCosts.model_validate_json(COSTS_FILE.read_text())


def modelled_energy(counts: Mapping[str, Sequence[float]], costs: EnergyCosts | None = None) -> EnergyEstimate:
    """Energy of one inference from what was counted in each, by the median.

    Args:
        counts: as in `RawRun.counts`; sums and bytes have no cost of their own, they are told by the others.
        costs: None for the packaged table.

    Raises:
        EnergyUnavailableError: something that has a cost was not counted.
    """
    table = costs or energy_costs()
    missing = sorted(name for name in table.picojoules if not counts.get(name))
    if missing:
        raise EnergyUnavailableError(f"no counts of {', '.join(missing)} to model the energy from")
    medians = {name: statistics.median(counts[name]) for name in table.picojoules}
    estimate = modelled(medians, table.picojoules, table.origin)
    return estimate.model_copy(update={"note": f"{estimate.note}: the core, its caches and DRAM only"})
