"""From readings of an idle baseline and of a run to the energy of one inference. Pure."""

import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from phonefit.device_bench.device import EnergyEstimate, RawRun
from phonefit.device_bench.energy import (
    EnergyUnavailableError,
    GaugeSample,
    RailSample,
    Spent,
    detect_gauge,
    gauge_spent,
    per_inference,
    rail_spent,
)
from phonefit.device_bench.parsers import integer, plain_text
from phonefit.device_bench.power_parsers import volts_of

MINUTE_SECONDS = 60.0
_Sample = TypeVar("_Sample", GaugeSample, RailSample)


def parse_gauge_log(text: str) -> tuple[GaugeSample, ...]:
    """Readings in a sampler's log: lines "SECONDS CURRENT VOLTAGE"; those that lack a value are left out.

    The voltage is in µV by the kernel's rules, in mV by Android's battery service; some devices mix them up.
    """
    samples = []
    for line in plain_text(text).splitlines():
        fields = line.split()
        if len(fields) != 3:
            continue
        current, volts = integer(fields[1]), volts_of(integer(fields[2]))
        if current is not None and volts is not None:
            samples.append(GaugeSample(seconds=float(fields[0]), current_raw=current, microvolts=round(volts * 1e6)))
    return tuple(samples)


def gauge_energy(
    idle: Sequence[GaugeSample], during: Sequence[GaugeSample], run: RawRun, name: str
) -> dict[str, EnergyEstimate]:
    """Energy by the battery's gauge, see `_energy`; sign and unit of the current are found from the idle readings.

    Raises:
        EnergyUnavailableError: too few readings, or they cannot be trusted.
    """
    gauge = detect_gauge(idle)
    return _energy(idle, during, run, lambda samples: gauge_spent(samples, gauge), name)


def rail_energy(
    idle: Sequence[RailSample], during: Sequence[RailSample], run: RawRun, name: str
) -> dict[str, EnergyEstimate]:
    """Energy by power rails, see `_energy`.

    Raises:
        EnergyUnavailableError: too few readings, or a counter that was set back.
    """
    return _energy(idle, during, run, rail_spent, name)


def within(samples: Sequence[_Sample], from_seconds: float, until_seconds: float) -> tuple[_Sample, ...]:
    """The readings in a stretch of time, both ends included."""
    return tuple(sample for sample in samples if from_seconds <= sample.seconds <= until_seconds)


def inferences_between(run: RawRun, from_seconds: float, until_seconds: float) -> float:
    """How many inferences a stretch of a run holds, parts of one included; times as in `RawRun.timed_from_seconds`.

    Raises:
        EnergyUnavailableError: the run does not say when its inferences took place.
    """
    start, end = run.timed_from_seconds, run.timed_until_seconds
    if start is None or end is None or end <= start:
        raise EnergyUnavailableError("the run does not say when its inferences took place")
    # pauses between inferences are spread evenly over them
    stretch = (end - start) / sum(run.sample_nanoseconds)
    ends = [start + stretch * total for total in itertools.accumulate(run.sample_nanoseconds)]

    def done_by(moment: float) -> float:
        whole = bisect_right(ends, moment)
        if whole == len(ends):
            return float(whole)
        begun = ends[whole - 1] if whole else start
        return whole + max(moment - begun, 0.0) / (ends[whole] - begun)

    return done_by(until_seconds) - done_by(from_seconds)


def _energy(
    idle: Sequence[_Sample],
    during: Sequence[_Sample],
    run: RawRun,
    spent: Callable[[Sequence[_Sample]], Spent],
    name: str,
) -> dict[str, EnergyEstimate]:
    """Energy of one inference over the timed inferences, and over the first and the last minute of a long run.

    Baseline and run are cut to the length of the shorter one.
    """
    if not idle or not during:
        raise EnergyUnavailableError(f"no readings ({name}) {'while idle' if not idle else 'during the run'}")
    start, end = run.timed_from_seconds, run.timed_until_seconds
    if start is None or end is None:
        whole = per_inference(spent(during), spent(_first(idle, _length(during))), len(run.sample_nanoseconds))
        note = f"{whole.note}; {name}; loading and warm-ups are in it: the runner does not say when its inferences ran"
        return {"energy": whole.model_copy(update={"note": note})}

    def over(from_seconds: float, until_seconds: float) -> EnergyEstimate:
        inside = _first(within(during, from_seconds, until_seconds), _length(idle))
        if not inside:
            raise EnergyUnavailableError(f"no readings ({name}) while inferences ran; measure for longer")
        count = inferences_between(run, inside[0].seconds, inside[-1].seconds)
        estimate = per_inference(spent(inside), spent(_first(idle, _length(inside))), count)
        return estimate.model_copy(update={"note": f"{estimate.note}; {name}"})

    found: Mapping[str, tuple[float, float]] = {"energy": (start, end)}
    if end - start >= 2 * MINUTE_SECONDS:
        minutes = {"first": (start, start + MINUTE_SECONDS), "last": (end - MINUTE_SECONDS, end)}
        found = {**found, **{f"energy_{which}_minute": stretch for which, stretch in minutes.items()}}
    return {figure: over(*stretch) for figure, stretch in found.items()}


def _length(samples: Sequence[_Sample]) -> float:
    return samples[-1].seconds - samples[0].seconds if samples else 0.0


def _first(samples: Sequence[_Sample], seconds: float) -> tuple[_Sample, ...]:
    """The readings of the first so many seconds, up to the reading that is nearest to their end."""
    if not samples:
        return ()
    wanted = samples[0].seconds + seconds
    last = min(range(len(samples)), key=lambda index: abs(samples[index].seconds - wanted))
    return tuple(samples[: last + 1])
