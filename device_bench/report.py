"""Report: the raw samples of a measurement with units and metadata. Statistics are derived on reading, never stored."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from phonefit.device_bench.device import DeviceInfo
from phonefit.models.artifact import Runtime
from phonefit.models.record import Frozen, Record

Source = Literal["measured", "counted", "modelled", "unavailable"]
Unit = Literal["ns", "bytes", "uJ", "instructions", "misses"]


class Figure(Frozen):
    """Raw samples of one quantity.

    Attributes:
        source: how it was obtained; `unavailable` has no samples and says why in `note`.
        uncertainty: half of the 95 % confidence interval of the sample, in `unit`; None where nobody knows it, or
            where the samples show it.
        method: which of several ways, for energy "rail", "gauge" or "modelled"; figures by unlike ways do not compare.
    """

    unit: Unit
    source: Source
    samples: tuple[float, ...] = ()
    note: str = ""
    uncertainty: float | None = None
    method: str = ""

    def like(self, other: "Figure") -> bool:
        """Whether the two may be compared: both are there, in one unit, by one source and way."""
        kinds = [(figure.unit, figure.source, figure.method) for figure in (self, other)]
        return self.source != "unavailable" and kinds[0] == kinds[1]


class Doubt(Frozen):
    """A reason not to trust a report, with its remedy."""

    reason: str
    remedy: str


class Report(Record):
    """One model file measured on one device.

    Attributes:
        figures: "latency", "warmup", "load", "peak_memory", "energy": name -> samples; where a device counts, also
            "instructions", "read_bytes", "l1_misses" and so on of an inference, and the same of the load as "load_…".
        out_of_memory: the memory limit of `settings` ended the process: there are no times, and the memory is how far
            it came.
        untrusted: reasons not to trust it; empty when the measurement is stable.
        settings: threads, warm-ups, repeats: what was asked.
    """

    schema_number: int = 1
    model_sha256: str
    model_bytes: int
    model_name: str
    runtime: Runtime
    device: DeviceInfo
    settings: Mapping[str, JsonValue]
    figures: Mapping[str, Figure]
    conditions_before: Mapping[str, JsonValue] = {}
    conditions_after: Mapping[str, JsonValue] = {}
    versions: Mapping[str, str] = {}
    untrusted: tuple[Doubt, ...] = ()
    out_of_memory: bool = False

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against the figures."""
        return not self.untrusted

    def median_milliseconds(self) -> float:
        """Median latency; infinite when the memory limit ended the process."""
        return math.inf if self.out_of_memory else statistics.median(self.figures["latency"].samples) / 1e6

    def p90_milliseconds(self) -> float:
        """90th percentile of latency; infinite when the memory limit ended the process."""
        return math.inf if self.out_of_memory else percentile(self.figures["latency"].samples, 90) / 1e6

    def variation(self) -> float:
        """Coefficient of variation of latency: standard deviation / mean."""
        return coefficient_of_variation(self.figures["latency"].samples)

    def load_milliseconds(self) -> float:
        """Median load time; infinite when the memory limit ended the process."""
        return math.inf if self.out_of_memory else statistics.median(self.figures["load"].samples) / 1e6

    def energy_microjoules(self) -> float | None:
        """Energy of one inference; None when it is not available. Look at the figure's source: it may be modelled."""
        samples = self.figures["energy"].samples if "energy" in self.figures else ()
        return statistics.median(samples) if samples else None

    def battery_capacity(self) -> tuple[int, str] | None:
        """The battery's capacity in µAh as the device tells it, and what told it; None when it is not known."""
        capacity = self.conditions_before.get("battery_capacity_microampere_hours")
        source = self.conditions_before.get("battery_capacity_source")
        return (capacity, str(source)) if isinstance(capacity, int) and capacity > 0 else None

    def peak_memory_bytes(self) -> float:
        """Largest peak memory above the process before it loaded the model, with its runtime: what the model adds."""
        return max(self.figures["peak_memory"].samples)


def percentile(samples: Sequence[float], share: float) -> float:
    """Percentile by linear interpolation between closest ranks (numpy's default method).

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("percentile of no samples")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * share / 100
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def coefficient_of_variation(samples: Sequence[float]) -> float:
    """Sample standard deviation / mean; 0 for fewer than two samples."""
    return statistics.stdev(samples) / statistics.mean(samples) if len(samples) > 1 else 0.0
