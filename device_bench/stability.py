"""Reasons not to trust a measurement, each with its remedy. Pure: samples and conditions in, warnings out."""

import statistics
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from phonefit.device_bench.device import RawRun
from phonefit.device_bench.report import Doubt, coefficient_of_variation

# Below ten samples a 90th percentile is the largest sample, and a median moves with each one.
MINIMUM_SAMPLES = 10
# Standard deviation over mean; pyperf calls a benchmark unstable above the same 10 %.
LARGEST_VARIATION = 0.10
# Median of the last third against that of the first. At 50 samples that vary as much as is allowed, chance alone gives
# more than this in one of fifty measurements; the rest is heating, throttling or other work.
LARGEST_DRIFT = 0.10
# The last warm-up against the median: one sample is noisy, half as much again is caches and pools still filling.
LARGEST_WARMUP_EXCESS = 1.5
# Other work on more than a quarter of the cores is likely to share a core, a cache or the clock with the measurement.
LARGEST_BUSY_SHARE = 0.25
# The load average counts waiting work too, and lags by a minute: above one task for two cores the machine is in use.
LARGEST_LOAD_SHARE = 0.5
# A sample of twice the median was interrupted; more than one in twenty of them reaches into the 90th percentile.
OUTLIER_FACTOR = 2.0
LARGEST_OUTLIER_SHARE = 0.05
# Share of the variance that the best split in two explains: 0.64 for a normal and 0.75 for a uniform distribution.
TWO_MODES_SHARE = 0.85
# Two modes matter when each holds some of the samples and they lie apart by more than what is called unstable.
SMALLEST_MODE_SHARE = 0.15
SMALLEST_MODE_DISTANCE = 0.10
# Median of the reference loops after the measurement against that before. At one clock and without other work they were
# seen to repeat within 2 %; one step of a governor's clock down is 5 % or more.
LARGEST_SLOWDOWN = 0.05
# The slowest reference loop against the fastest, on either side of the measurement: a loop that another program
# interrupts takes longer by a whole time slice, 3 ms or more of its 5 ms; interrupts of the kernel take far less.
LARGEST_REFERENCE_SPREAD = 0.5
# A single interrupted loop is no other program: on each side, one is left out.
LEFT_OUT = 1


def check(run: RawRun) -> tuple[Doubt, ...]:
    """All reasons not to trust a run; empty when there is none, as always for times that follow from exact counts."""
    if run.latency_source == "modelled":
        return ()
    found = (
        _too_few(run.sample_nanoseconds),
        _varies(run.sample_nanoseconds),
        _drifts(run.sample_nanoseconds),
        _not_warm(run.warmup_nanoseconds, run.sample_nanoseconds),
        _busy(run),
        _outliers(run.sample_nanoseconds),
        _two_modes(run.sample_nanoseconds),
        _slowed_down(run.reference_before_nanoseconds, run.reference_after_nanoseconds),
        _shared_core(run.reference_before_nanoseconds, run.reference_after_nanoseconds),
        _wrong(run.wrong_outputs),
    )
    return tuple(warning for warning in found if warning is not None)


def _too_few(samples: Sequence[int]) -> Doubt | None:
    if len(samples) >= MINIMUM_SAMPLES:
        return None
    return Doubt(
        reason=f"only {len(samples)} sample(s), fewer than {MINIMUM_SAMPLES}",
        remedy=f"ask for at least {MINIMUM_SAMPLES} repeats",
    )


def _varies(samples: Sequence[int]) -> Doubt | None:
    variation = coefficient_of_variation(samples)
    if variation <= LARGEST_VARIATION:
        return None
    return Doubt(
        reason=f"the latency varies by {variation:.0%} (standard deviation / mean), more than {LARGEST_VARIATION:.0%}",
        remedy="end other programs, fix the clock (governor `performance`), or ask for more repeats",
    )


def _drifts(samples: Sequence[int]) -> Doubt | None:
    if len(samples) < MINIMUM_SAMPLES:
        return None
    third = len(samples) // 3
    drift = statistics.median(samples[-third:]) / statistics.median(samples[:third]) - 1
    if abs(drift) <= LARGEST_DRIFT:
        return None
    remedy = (
        "let the device cool down or lower the number of threads: it may be throttling"
        if drift > 0
        else "ask for more warm-ups: it was still getting faster"
    )
    return Doubt(reason=f"the last third of the samples is {drift:+.0%} against the first", remedy=remedy)


def _not_warm(warmups: Sequence[int], samples: Sequence[int]) -> Doubt | None:
    what, last = ("last warm-up", warmups[-1]) if warmups else ("first sample, without a warm-up,", samples[0])
    excess = last / statistics.median(samples)
    if excess <= LARGEST_WARMUP_EXCESS:
        return None
    return Doubt(
        reason=f"the {what} took {excess:.1f} times the median",
        remedy=f"ask for more than {len(warmups)} warm-up(s)",
    )


def _busy(run: RawRun) -> Doubt | None:
    before, after = run.conditions_before, run.conditions_after
    cores, load = _number(before, "cores"), _number(before, "load_average_1m")
    if cores is None:
        return None
    found = (("before the start", _number(before, "busy_cores")), ("after the end", _number(after, "busy_cores")))
    known = [(busy, moment) for moment, busy in found if busy is not None]
    if known:
        # the present use decides where it is known: the load average still holds work that has ended
        busy, moment = max(known)
        if busy / cores <= LARGEST_BUSY_SHARE:
            return None
        reason = f"other work kept {busy:.1f} of {cores:g} cores busy {moment}"
    elif load is not None and load / cores > LARGEST_LOAD_SHARE:
        reason = f"the load average was {load:.1f} on {cores:g} cores before the start"
    else:
        return None
    return Doubt(reason=reason, remedy="end other programs, or measure when the machine is idle")


def _outliers(samples: Sequence[int]) -> Doubt | None:
    limit = OUTLIER_FACTOR * statistics.median(samples)
    share = sum(sample > limit for sample in samples) / len(samples)
    if share <= LARGEST_OUTLIER_SHARE:
        return None
    return Doubt(
        reason=f"{share:.0%} of the samples took over {OUTLIER_FACTOR:g} times the median",
        remedy="end other programs; use no more threads than there are idle cores",
    )


def _two_modes(samples: Sequence[int]) -> Doubt | None:
    """Otsu's split (1979) of the sorted samples: the cut with the largest variance between the two sides."""
    count = len(samples)
    if count < MINIMUM_SAMPLES or (whole := statistics.pvariance(samples)) == 0:
        return None
    ordered = sorted(samples)
    total = sum(ordered)
    best, low_centre, high_centre, low_count = 0.0, 0.0, 0.0, 0
    running = 0
    for cut in range(1, count):
        running += ordered[cut - 1]
        low, high = running / cut, (total - running) / (count - cut)
        between = cut * (count - cut) / count**2 * (high - low) ** 2
        if between > best:
            best, low_centre, high_centre, low_count = between, low, high, cut
    smaller_share = min(low_count, count - low_count) / count
    apart = high_centre / low_centre - 1
    if best / whole <= TWO_MODES_SHARE or smaller_share < SMALLEST_MODE_SHARE or apart <= SMALLEST_MODE_DISTANCE:
        return None
    return Doubt(
        reason=f"the latency has two levels, {low_centre / 1e6:.2f} and {high_centre / 1e6:.2f} ms",
        remedy="fix the clock, or pin the process to like cores: it seems to move between two speeds",
    )


def _slowed_down(before: Sequence[int], after: Sequence[int]) -> Doubt | None:
    if not before or not after:
        return None
    slowdown = statistics.median(after) / statistics.median(before) - 1
    if slowdown <= LARGEST_SLOWDOWN:
        return None
    return Doubt(
        reason=f"the same arithmetic took {slowdown:.0%} longer after the measurement than before it",
        remedy="let the device cool down, and measure for a shorter time or with fewer threads: it was throttling",
    )


def _shared_core(before: Sequence[int], after: Sequence[int]) -> Doubt | None:
    """On either side, since a slower clock alone makes those after slower than those before."""
    sides = [sorted(side) for side in (before, after) if len(side) > LEFT_OUT + 1]
    spread = max((side[-1 - LEFT_OUT] / side[0] - 1 for side in sides), default=0.0)
    if spread <= LARGEST_REFERENCE_SPREAD:
        return None
    return Doubt(
        reason=f"the same arithmetic took up to {spread:.0%} longer than at its fastest: the core was shared",
        remedy="end other programs, or measure when the machine is idle",
    )


def _wrong(difference: str) -> Doubt | None:
    remedy = "the device computes something else: convert the file with the version of the runtime that is there"
    return Doubt(reason=difference, remedy=remedy) if difference else None


def _number(conditions: Mapping[str, JsonValue], name: str) -> float | None:
    value = conditions.get(name)
    return float(value) if isinstance(value, int | float) else None
