"""Energy of an inference: where the figure comes from, what idling costs, how sure it is. Pure.

Sources, best first: `rail` (counters on the phone's own power rails), `gauge` (current and voltage of the battery),
`modelled` (from counts and a table of costs), `unavailable`. A model is never shown as a measurement.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

from phonefit.device_bench.device import DeviceError, EnergyEstimate, EnergySource
from phonefit.device_bench.power_parsers import Battery, PowerSupply, Supply
from phonefit.device_bench.report import Figure
from phonefit.models.record import Frozen

# Nominal voltage of a lithium-ion cell of today's phones: what a capacity in mAh is multiplied with to give energy.
NOMINAL_VOLTS = 3.85
# A phone that is awake for adb draws more than 2.5 mA, and no phone idles at 2.5 A: below it the unit is mA, not µA.
_LARGEST_MILLIAMPERE_READING = 2500
# Share of readings whose sign differs that is still noise of the gauge.
_LARGEST_ODD_SHARE = 0.05
# Idle baseline and run may differ in length by this share: longer, and the phone is not the same phone any more.
_LARGEST_LENGTH_DIFFERENCE = 0.10
# Normal distribution: 95 % within so many standard errors.
_STANDARD_ERRORS = 1.96
_FEWEST_READINGS = 5


class EnergyUnavailableError(DeviceError):
    """No energy figure can be given, and why."""


class GaugeSample(Frozen):
    """One reading of the battery's gauge: current as the device gives it, sign and unit included."""

    seconds: float
    current_raw: int
    microvolts: int


class RailSample(Frozen):
    """One reading of energy counters: their sum over the rails that are looked at, since some moment in the past."""

    seconds: float
    microjoules: float


class Gauge(Frozen):
    """How a device states its current.

    Attributes:
        microamperes: of one unit of its reading, negative where discharging is negative: reading x this is the drain.
    """

    microamperes: float


class Spent(Frozen):
    """Energy over a stretch of time, with one standard error."""

    source: EnergySource
    seconds: float
    microjoules: float
    standard_error: float


def refuse_charging(battery: Battery | None, supply: PowerSupply | Supply | None = None) -> None:
    """A gauge measures the charger while there is one.

    Args:
        battery: as Android tells it; None on a Linux that is no Android.
        supply: as the kernel tells it; None where the shell may not read it.

    Raises:
        EnergyUnavailableError: the battery is charging, a charger is connected, its state is faked, or nobody tells.
    """
    remedy = "use adb over Wi-Fi and pull the cable, or cut the port's power, then measure again"
    if battery is None:
        status = supply.status if supply is not None else "unknown"
        if status != "discharging":
            raise EnergyUnavailableError(f"the battery is {status}, not discharging; {remedy}")
        return
    if battery.faked:
        raise EnergyUnavailableError(
            "the battery's state is faked (`dumpsys battery unplug` or `set` is in force), which stops no charger; "
            f"`dumpsys battery reset`, then {remedy}"
        )
    if battery.plugged:
        raise EnergyUnavailableError(f"{' and '.join(battery.plugged)} power is connected; {remedy}")
    if battery.charging or (supply is not None and supply.status in ("charging", "full")):
        raise EnergyUnavailableError(f"the battery is {battery.status}; {remedy}")


def detect_gauge(idle: Sequence[GaugeSample]) -> Gauge:
    """Sign and unit of a device's current, from readings while it is known to discharge (see `refuse_charging`).

    Android asks for µA with discharging negative (BatteryManager.BATTERY_PROPERTY_CURRENT_NOW); devices differ in both.

    Raises:
        EnergyUnavailableError: too few readings, none but zeros, or the sign changes.
    """
    readings = [sample.current_raw for sample in idle if sample.current_raw != 0]
    if len(readings) < _FEWEST_READINGS:
        raise EnergyUnavailableError(
            f"the gauge gave {len(readings)} readings of a current, at least {_FEWEST_READINGS} are needed; sample for "
            "longer, or use another phone: this one may not tell its current"
        )
    negative = sum(reading < 0 for reading in readings)
    odd = min(negative, len(readings) - negative) / len(readings)
    if odd > _LARGEST_ODD_SHARE:
        raise EnergyUnavailableError(
            f"the sign of the current changed in {odd:.0%} of the readings while the phone discharged; pull the "
            "cable and wait a minute: a charger or a wireless pad is still at work"
        )
    unit = 1000.0 if statistics.median(map(abs, readings)) <= _LARGEST_MILLIAMPERE_READING else 1.0
    return Gauge(microamperes=-unit if 2 * negative > len(readings) else unit)


def gauge_spent(samples: Sequence[GaugeSample], gauge: Gauge) -> Spent:
    """Energy drawn from the battery: current x voltage, by the trapezoidal rule.

    Gauges renew their reading more slowly than one can ask: equal readings in a row count once for the standard error.

    Raises:
        EnergyUnavailableError: too few readings.
    """
    if len(samples) < _FEWEST_READINGS:
        raise EnergyUnavailableError(f"{len(samples)} readings of the gauge, at least {_FEWEST_READINGS} are needed")
    # µA x µV = 1e-12 W; in µW: x 1e-6
    powers = [sample.current_raw * gauge.microamperes * sample.microvolts * 1e-6 for sample in samples]
    times = [sample.seconds for sample in samples]
    energy = sum(
        (after - before) * (low + high) / 2
        for (before, after), (low, high) in zip(itertools.pairwise(times), itertools.pairwise(powers), strict=True)
    )
    return _spent("gauge", times[-1] - times[0], energy, [key for key, _ in itertools.groupby(powers)])


def rail_spent(samples: Sequence[RailSample]) -> Spent:
    """Energy by counters on power rails: last minus first; the standard error is from the power between readings.

    Raises:
        EnergyUnavailableError: too few readings, or a counter that runs backwards.
    """
    if len(samples) < _FEWEST_READINGS:
        raise EnergyUnavailableError(f"{len(samples)} readings of the rails, at least {_FEWEST_READINGS} are needed")
    pairs = list(itertools.pairwise(samples))
    if any(after.microjoules < before.microjoules or after.seconds <= before.seconds for before, after in pairs):
        raise EnergyUnavailableError("a counter of the power rails went backwards: it was set back; measure again")
    powers = [(after.microjoules - before.microjoules) / (after.seconds - before.seconds) for before, after in pairs]
    first, last = samples[0], samples[-1]
    return _spent("rail", last.seconds - first.seconds, last.microjoules - first.microjoules, powers)


def _spent(source: EnergySource, seconds: float, microjoules: float, independent_powers: Sequence[float]) -> Spent:
    if seconds <= 0:
        raise EnergyUnavailableError("the readings have no length in time; sample for longer")
    count = len(independent_powers)
    # one reading only tells nothing of its own error: take it to be as large as the energy
    error = statistics.stdev(independent_powers) / math.sqrt(count) * seconds if count > 1 else abs(microjoules)
    return Spent(source=source, seconds=seconds, microjoules=microjoules, standard_error=error)


def per_inference(run: Spent, idle: Spent, inferences: float) -> EnergyEstimate:
    """Energy of one inference above an idle baseline of the same length.

    Args:
        inferences: those within the run's readings; the first and the last need not be there in full.

    Raises:
        EnergyUnavailableError: no inference, unlike sources, or a baseline of another length.
    """
    if inferences < 1:
        raise EnergyUnavailableError("no inference took place while energy was measured")
    if run.source != idle.source:
        raise EnergyUnavailableError(f"the run was measured by {run.source}, the baseline by {idle.source}")
    ratio = run.seconds / idle.seconds
    if abs(ratio - 1) > _LARGEST_LENGTH_DIFFERENCE:
        raise EnergyUnavailableError(
            f"the run took {run.seconds:.1f} s, the idle baseline {idle.seconds:.1f} s; they must be equal"
        )
    net = (run.microjoules - ratio * idle.microjoules) / inferences
    error = math.hypot(run.standard_error, ratio * idle.standard_error) / inferences
    interval = _STANDARD_ERRORS * error
    watts = idle.microjoules / idle.seconds / 1e6
    note = f"{run.source}: {inferences:.0f} inferences in {run.seconds:.1f} s, idling at {watts:.2f} W taken off"
    if net <= interval:
        note += "; cannot be told apart from idling: measure for longer"
    return EnergyEstimate(source=run.source, microjoules=net, uncertainty_microjoules=interval, note=note)


def modelled(counts: Mapping[str, float], picojoules: Mapping[str, float], origin: str) -> EnergyEstimate:
    """Energy of one inference by a table of costs, such as pJ for an instruction or a byte from DRAM.

    Args:
        counts: how often each thing happens in one inference.
        picojoules: cost of each.
        origin: where the table is from; part of the note.

    Raises:
        EnergyUnavailableError: something was counted that the table has no cost for.
    """
    missing = sorted(counts.keys() - picojoules.keys())
    if missing:
        raise EnergyUnavailableError(f"no cost for {', '.join(missing)} in the table of {origin}")
    energy = sum(count * picojoules[name] for name, count in counts.items()) / 1e6
    return EnergyEstimate(
        source="modelled", microjoules=energy, uncertainty_microjoules=None, note=f"modelled, costs of {origin}"
    )


def drain_percent(
    microjoules: float, capacity_microampere_hours: int, inferences: int = 1000, volts: float = NOMINAL_VOLTS
) -> float:
    """Share of a full battery, in percent, that so many inferences take.

    Args:
        microjoules: of one inference.
        capacity_microampere_hours: of the battery, from the device.
        volts: nominal voltage of the battery.

    Raises:
        EnergyUnavailableError: the capacity is no positive number.
    """
    if capacity_microampere_hours <= 0:
        raise EnergyUnavailableError(f"a battery of {capacity_microampere_hours} µAh: its capacity is not known")
    battery = capacity_microampere_hours * 3600 * volts  # µAh x 3600 s = µC; x V = µJ
    return 100 * inferences * microjoules / battery


def drain_sentence(
    microjoules: float, uncertainty: float | None, capacity_microampere_hours: int, *, modelled: bool = False
) -> str:
    """The drain as a person says it.

    Args:
        uncertainty: of the microjoules, half of the 95 % confidence interval; None when nobody knows it.
    """
    percent = drain_percent(microjoules, capacity_microampere_hours)
    spread = "" if uncertainty is None else f" ± {drain_percent(uncertainty, capacity_microampere_hours):.2g}"
    label = " (modelled)" if modelled else ""
    milliampere_hours = capacity_microampere_hours / 1000
    return f"1,000 inferences take {percent:.2g}{spread} % of the {milliampere_hours:,.0f} mAh battery{label}"


def figure(estimate: EnergyEstimate) -> Figure:
    """The estimate as a figure of a report: rails and gauge are measured, a model is modelled."""
    spread = estimate.uncertainty_microjoules
    interval = "" if spread is None else f"; ± {spread:.3g} uJ (95 %)"
    return Figure(
        unit="uJ",
        source="modelled" if estimate.source == "modelled" else "measured",
        samples=(estimate.microjoules,),
        note=estimate.note + interval,
        uncertainty=spread,
        method=estimate.source,
    )


def unavailable(why: str) -> Figure:
    """The figure of a device that has no source of energy figures."""
    return Figure(unit="uJ", source="unavailable", note=why)
