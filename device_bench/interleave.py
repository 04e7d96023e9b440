"""Two files in turn on one device, A B A B …: the ratio holds also while the machine's speed drifts."""

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonefit.device_bench.bench import job_of, report_of
from phonefit.device_bench.compare import CONFIDENCE, RESAMPLES, SEED, Outcome, outcome_of
from phonefit.device_bench.device import Device, DeviceError, RawRun
from phonefit.device_bench.report import Report
from phonefit.models.record import Frozen, file_digest

LEAST_ROUNDS = 4


class Interleaved(Frozen):
    """Two files measured in turn.

    Attributes:
        first: all samples of A, over all rounds.
        ratios: of each round: median latency of B / median latency of A. Below 1: B is faster.
        ratio: their median.
        low: lower end of the 95 % confidence interval of `ratio` (bootstrap over rounds, so it covers what varies
            between processes, not only between inferences).
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
    ratio, (low, high) = statistics.median(ratios), _interval(ratios)
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
            "conditions_before": runs[0].conditions_before,
            "conditions_after": runs[-1].conditions_after,
        }
    )


def _interval(ratios: list[float]) -> tuple[float, float]:
    random = np.random.default_rng(SEED)
    medians = np.median(random.choice(np.array(ratios), (RESAMPLES, len(ratios))), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, (tail, 1 - tail))
    return float(low), float(high)
