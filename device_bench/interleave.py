"""Two files in turn on one device, A B B A …: the ratio holds also while the machine's speed drifts."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from phonefit.device_bench.bench import job_of, report_of
from phonefit.device_bench.compare import CONFIDENCE, Outcome, outcome_of
from phonefit.device_bench.device import Device, DeviceError, RawRun
from phonefit.device_bench.report import Report
from phonefit.models.record import Frozen, file_digest

# With fewer, not even the whole range of the rounds is a 95 % interval: six agree by chance in one of 32 cases.
LEAST_ROUNDS = 6


class Interleaved(Frozen):
    """Two files measured in turn.

    Attributes:
        first: all samples of A, over all rounds.
        ratios: of each round: median latency of B / median latency of A. Below 1: B is faster.
        ratio: their centre (Hodges and Lehmann, 1963): the median of the geometric means of all pairs of rounds.
        low: lower end of the 95 % confidence interval of `ratio` over the rounds (Wilcoxon's signed ranks), so it
            covers what varies between processes, not only between inferences, and a disturbed round hardly moves it.
        outcome: B is faster or slower only when the whole interval is on one side of 1, by 5 % at least.
    """

    first: Report
    second: Report
    ratios: tuple[float, ...]
    ratio: float
    low: float
    high: float
    outcome: Outcome

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        return (
            f"{self.second.model_name}: {self.outcome} than {self.first.model_name}"
            if self.outcome != "no clear difference"
            else f"no clear difference between {self.first.model_name} and {self.second.model_name}"
        ) + f" (ratio {self.ratio:.3f}, 95 % interval {self.low:.3f} to {self.high:.3f}, {len(self.ratios)} rounds)"


def interleave(
    first: Path,
    second: Path,
    device: Device,
    *,
    threads: int = 1,
    warmups: int = 5,
    repeats: int = 50,
    rounds: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Interleaved:
    """Measure two files in turn, each time in a fresh process; the order changes from round to round.

    Args:
        device: prepared and cleaned up by the caller.
        repeats: timed inferences of each file in each round.
        advance: called after each measurement.

    Raises:
        FileFormatError: a file is not a model.
        DeviceError: too few rounds, or the device refuses.
        MeasurementError: a measurement failed.
    """
    if rounds < LEAST_ROUNDS:
        raise DeviceError(f"rounds must be at least {LEAST_ROUNDS} but got {rounds}: fewer give no interval")
    jobs = tuple(job_of(path, threads=threads, warmups=warmups, repeats=repeats) for path in (first, second))
    runs: tuple[list[RawRun], list[RawRun]] = ([], [])
    for number in range(rounds):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            runs[place].append(device.run(jobs[place]))
            advance()
    info = device.info()
    reports = [
        report_of(job, _together(several), info, file_digest(job.model))
        for job, several in zip(jobs, runs, strict=True)
    ]
    ratios = [
        statistics.median(after.sample_nanoseconds) / statistics.median(before.sample_nanoseconds)
        for before, after in zip(*runs, strict=True)
    ]
    ratio, low, high = centre_and_interval(ratios)
    return Interleaved(
        first=reports[0],
        second=reports[1],
        ratios=tuple(ratios),
        ratio=ratio,
        low=low,
        high=high,
        outcome=outcome_of(ratio, low, high),
    )


def _together(runs: list[RawRun]) -> RawRun:
    """All samples of several runs as one; memory is that of the largest, load time the median."""
    largest = max(runs, key=lambda run: run.peak_bytes - run.baseline_bytes)
    return largest.model_copy(
        update={
            "load_nanoseconds": int(statistics.median(run.load_nanoseconds for run in runs)),
            "warmup_nanoseconds": tuple(value for run in runs for value in run.warmup_nanoseconds),
            "sample_nanoseconds": tuple(value for run in runs for value in run.sample_nanoseconds),
            "reference_before_nanoseconds": tuple(t for run in runs for t in run.reference_before_nanoseconds),
            "reference_after_nanoseconds": tuple(t for run in runs for t in run.reference_after_nanoseconds),
            "timed_from_seconds": runs[0].timed_from_seconds,
            "timed_until_seconds": runs[-1].timed_until_seconds,
            "conditions_before": runs[0].conditions_before,
            "conditions_after": runs[-1].conditions_after,
        }
    )


def centre_and_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Centre of some ratios and the ends of its 95 % interval, which no distribution is assumed for but symmetry of the
    logarithms, as the order within the rounds alternates.

    Exact for any number of rounds, where a bootstrap of so few is too narrow: Hollander and Wolfe, Nonparametric
    Statistical Methods, section 3.3.

    Args:
        ratios: at least LEAST_ROUNDS.
    """
    logarithms = np.log(ratios)
    first, second = np.triu_indices(len(ratios))
    means = np.sort((logarithms[first] + logarithms[second]) / 2)
    # in how many of the 2^n ways of giving signs to the ranks their positive ones sum up to 0, 1, 2, …
    ways = np.ones(1)
    for rank in range(1, len(ratios) + 1):
        ways = np.convolve(ways, [1, *[0] * (rank - 1), 1])
    chances = np.cumsum(ways) / 2 ** len(ratios)
    outside = int((chances <= (1 - CONFIDENCE) / 2).sum()) - 1
    centre, low, high = np.exp([np.median(means), means[outside], means[-1 - outside]])
    return float(centre), float(low), float(high)
