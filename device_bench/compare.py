"""Two Reports side by side. Figures of unlike devices or settings are refused, never compared."""

import functools
import statistics
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phonefit.device_bench.device import DeviceInfo
from phonefit.device_bench.report import Report
from phonefit.models.errors import PhonefitError
from phonefit.models.record import Frozen

Outcome = Literal["faster", "slower", "no clear difference"]
CompareUnit = Literal["ms", "MB", "M", "k"]

# The medians of two runs of the same file were seen to differ by this much, however little the samples of each varied.
SMALLEST_DIFFERENCE = 0.05
CONFIDENCE = 0.95
RESAMPLES = 2000
# Counts that get a row: figure, name of the row, its unit and what that is of the figure's.
COUNTED: tuple[tuple[str, str, CompareUnit, float], ...] = (
    ("instructions", "instructions", "M", 1e6),
    ("read_bytes", "bytes read", "MB", 1e6),
    ("l2_misses", "L2 misses", "k", 1e3),
)
# So that two calls on the same reports agree.
SEED = 0


class UnlikeReportsError(PhonefitError):
    """Two reports whose figures must not be compared."""


class Row(Frozen):
    """One figure of both reports. `ratio` is second / first, so below 1 is less; k is a thousand, M a million."""

    name: str
    unit: CompareUnit
    first_value: float
    second_value: float
    ratio: float

    @property
    def first(self) -> str:
        """The first value, with its unit, to read."""
        return f"{self.first_value:.3f} {self.unit}"

    @property
    def second(self) -> str:
        """The second value, with its unit, to read."""
        return f"{self.second_value:.3f} {self.unit}"


class Comparison(Frozen):
    """The second report against the first.

    Attributes:
        rows: median and p90 latency, load time, peak memory, file size, and where both count them instructions, bytes
            read and L2 misses of an inference; a figure that is 0 in the first has no row.
        median_ratio: second / first of the median latency.
        median_ratio_low: lower end of its 95 % confidence interval (bootstrap).
        median_ratio_high: upper end.
        outcome: on latency: the second is faster or slower than the first only when the whole interval is on one side
            of 1 and the medians differ by 5 % at least.
        untrusted: names of those whose own measurement is not to be trusted.
    """

    first: str
    second: str
    rows: tuple[Row, ...]
    median_ratio: float
    median_ratio_low: float
    median_ratio_high: float
    outcome: Outcome
    untrusted: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        interval = f"median ratio {self.median_ratio:.3f}, 95 % interval {self.median_ratio_low:.3f} to "
        doubt = f"; not to be trusted: {', '.join(self.untrusted)}" if self.untrusted else ""
        return f"{self.second}: {self.outcome} ({interval}{self.median_ratio_high:.3f}){doubt}"


def compare(first: Report, second: Report) -> Comparison:
    """Compare two reports of one device, measured with the same number of threads.

    The confidence interval is the percentile bootstrap of the ratio of medians (Efron and Tibshirani, 1993). It covers
    what varies between the samples of these two runs, not what varies between runs.

    Raises:
        UnlikeReportsError: the devices, the threads or the kind of figure differ; the message says which.
    """
    differences = _differences(first, second)
    if differences:
        raise UnlikeReportsError(
            f"{first.model_name} and {second.model_name} cannot be compared: {'; '.join(differences)}; "
            "measure both on one device with the same settings"
        )
    before, after = (np.asarray(report.figures["latency"].samples, dtype=np.float64) for report in (first, second))
    low, high = _interval(before, after)
    ratio = statistics.median(after) / statistics.median(before)
    return Comparison(
        first=first.model_name,
        second=second.model_name,
        rows=_rows(first, second),
        median_ratio=ratio,
        median_ratio_low=low,
        median_ratio_high=high,
        outcome=outcome_of(ratio, low, high),
        untrusted=tuple(report.model_name for report in (first, second) if not report.trusted),
    )


def _rows(first: Report, second: Report) -> tuple[Row, ...]:
    figures: tuple[tuple[str, CompareUnit, Callable[[Report], float]], ...] = (
        ("latency, median", "ms", Report.median_milliseconds),
        ("latency, p90", "ms", Report.p90_milliseconds),
        ("load", "ms", Report.load_milliseconds),
        ("peak memory", "MB", lambda report: report.peak_memory_bytes() / 1e6),
        ("file size", "MB", lambda report: report.model_bytes / 1e6),
        *(
            (row, unit, functools.partial(_counted, name, scale))
            for name, row, unit, scale in COUNTED
            if all(name in report.figures and report.figures[name].samples for report in (first, second))
        ),
    )
    return tuple(
        Row(
            name=name,
            unit=unit,
            first_value=value(first),
            second_value=value(second),
            ratio=value(second) / value(first),
        )
        for name, unit, value in figures
        if value(first)
    )


def _counted(name: str, scale: float, report: Report) -> float:
    return statistics.median(report.figures[name].samples) / scale


def outcome_of(ratio: float, low: float, high: float) -> Outcome:
    """What a ratio of latencies and its interval say: a difference only when both are clear of 1."""
    if high < 1 and ratio <= 1 - SMALLEST_DIFFERENCE:
        return "faster"
    if low > 1 and ratio >= 1 + SMALLEST_DIFFERENCE:
        return "slower"
    return "no clear difference"


def _interval(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
    random = np.random.default_rng(SEED)
    medians = [np.median(random.choice(samples, (RESAMPLES, samples.size)), axis=1) for samples in (before, after)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians[1] / medians[0], (tail, 1 - tail))
    return float(low), float(high)


def _differences(first: Report, second: Report) -> list[str]:
    found = []
    if not first.device.like(second.device):
        found += _device_differences(first.device, second.device)
    threads = first.settings.get("threads"), second.settings.get("threads")
    if threads[0] != threads[1]:
        found.append(f"{threads[0]} against {threads[1]} thread(s)")
    runners = [report.versions.get("runner", "python") for report in (first, second)]
    if runners[0] != runners[1]:
        found.append(f"run by {runners[0]} against {runners[1]}")
    for name in ("latency", "load", "peak_memory"):
        kinds = [f"{report.figures[name].source} {report.figures[name].unit}" for report in (first, second)]
        if kinds[0] != kinds[1]:
            found.append(f"{name} is {kinds[0]} against {kinds[1]}")
    return found


def _device_differences(first: DeviceInfo, second: DeviceInfo) -> list[str]:
    """The fields of `DeviceInfo.like` in which two devices differ, with both values."""
    pairs = (
        ("device kind", first.kind, second.kind),
        ("device name", first.name, second.name),
        ("architecture", first.architecture, second.architecture),
        ("cores", first.cores, second.cores),
    )
    return [f"{name} {one} against {other}" for name, one, other in pairs if one != other]
