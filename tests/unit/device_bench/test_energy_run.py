"""From a sampler's log and a run's times to the energy of one inference."""

import random

import pytest

from phonefit.device_bench.device import RawRun
from phonefit.device_bench.energy import EnergyUnavailableError, GaugeSample, RailSample
from phonefit.device_bench.energy_run import (
    gauge_energy,
    inferences_between,
    parse_gauge_log,
    rail_energy,
    within,
)

IDLE_WATTS, BUSY_WATTS, VOLTS = 1.2, 3.6, 4.0


def run_of(start, end, inferences=100):
    each = round((end - start) * 1e9 / inferences) if start is not None else 10**7
    return RawRun(
        load_nanoseconds=1,
        warmup_nanoseconds=(each,),
        sample_nanoseconds=(each,) * inferences,
        baseline_bytes=1,
        peak_bytes=2,
        timed_from_seconds=start,
        timed_until_seconds=end,
    )


def gauge(seed, start, end, busy=(-1, -1), noise=0.2, step=0.1):
    """Readings of a phone that is busy within a stretch of time; power varies by `noise`."""
    drawn = random.Random(seed)
    samples = []
    for index in range(round((end - start) / step) + 1):
        moment = start + index * step
        watts = BUSY_WATTS if busy[0] <= moment <= busy[1] else IDLE_WATTS
        current = -watts / VOLTS * 1e6 * drawn.gauss(1, noise)
        samples.append(GaugeSample(seconds=moment, current_raw=round(current), microvolts=round(VOLTS * 1e6)))
    return samples


def test_a_log_of_the_sampler():
    text = "100.50 -350000 3900000\r\n100.60  3900000\n100.70 -360000 3901\nend\n"
    first, second = parse_gauge_log(text)
    assert first == GaugeSample(seconds=100.5, current_raw=-350_000, microvolts=3_900_000)
    assert second.microvolts == 3_901_000  # mV, as Android's battery service tells it


def test_only_what_was_read_while_inferences_ran_counts():
    # idle before and after them: loading, warm-up, the way to the sampler's end
    idle = gauge(1, 0, 30, noise=0.0005)
    during = gauge(2, 100, 140, busy=(104.9, 135.1), noise=0.0005)
    found = gauge_energy(idle, during, run_of(105, 135), "a gauge")["energy"]
    assert found.microjoules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 0.3e6, rel=1e-3)
    assert "100 inferences in 30.0 s, idling at 1.20 W taken off; a gauge" in found.note


def test_the_interval_holds_the_truth_as_often_as_it_says():
    truth = (BUSY_WATTS - IDLE_WATTS) * 0.3e6
    held = 0
    for seed in range(200):
        idle, during = gauge(2 * seed, 0, 30), gauge(2 * seed + 1, 100, 132, busy=(100, 132))
        found = gauge_energy(idle, during, run_of(101, 131), "a gauge")["energy"]
        held += abs(found.microjoules - truth) <= found.uncertainty_microjoules
    assert 180 <= held <= 199


def test_a_run_longer_than_the_baseline_is_cut_to_its_length():
    found = gauge_energy(
        gauge(1, 0, 30, noise=0.0005), gauge(2, 100, 160, busy=(0, 999), noise=0.0005), run_of(100, 160), "x"
    )
    assert "50 inferences in 30.0 s" in found["energy"].note
    assert found["energy"].microjoules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 0.6e6, rel=1e-3)


def test_a_run_without_times_is_taken_as_a_whole_and_says_so():
    during = gauge(2, 100, 130, busy=(0, 999), noise=0.0005)
    found = gauge_energy(gauge(1, 0, 30, noise=0.0005), during, run_of(None, None), "x")["energy"]
    assert "loading and warm-ups are in it" in found.note and "100 inferences in 30.0 s" in found.note


def test_a_long_run_tells_its_first_and_its_last_minute():
    idle = gauge(1, 0, 240, noise=0.0005)
    hot = gauge(2, 1000, 1240, busy=(1120, 1240), noise=0.0005)
    cool = [*gauge(2, 1000, 1119.9, busy=(1000, 1119.9), noise=0.0005), *hot[1200:]]
    # the second half draws more
    during = [
        sample.model_copy(update={"current_raw": sample.current_raw * (2 if sample.seconds > 1120 else 1)})
        for sample in cool
    ]
    found = gauge_energy(idle, during, run_of(1000, 1240, inferences=240), "x")
    assert set(found) == {"energy", "energy_first_minute", "energy_last_minute"}
    assert found["energy_first_minute"].microjoules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 1e6, rel=1e-3)
    assert found["energy_last_minute"].microjoules == pytest.approx((2 * BUSY_WATTS - IDLE_WATTS) * 1e6, rel=1e-3)


def rails(start, end, watts):
    step = 0.25
    return [
        RailSample(seconds=start + index * step, microjoules=9e9 + watts * index * step * 1e6)
        for index in range(round((end - start) / step) + 1)
    ]


def test_rails_by_the_same_windows():
    found = rail_energy(rails(0, 31, IDLE_WATTS), rails(100, 134, BUSY_WATTS), run_of(102, 132), "rails")["energy"]
    assert found.source == "rail" and found.microjoules == pytest.approx((BUSY_WATTS - IDLE_WATTS) * 0.3e6, rel=1e-3)


def test_parts_of_inferences_count_as_parts():
    run = run_of(10, 20, inferences=10)
    assert inferences_between(run, 10, 20) == pytest.approx(10)
    assert inferences_between(run, 10.5, 12.25) == pytest.approx(1.75)
    assert inferences_between(run, 0, 99) == pytest.approx(10)
    with pytest.raises(EnergyUnavailableError, match="does not say when"):
        inferences_between(run_of(None, None), 0, 1)


@pytest.mark.parametrize(
    ("idle", "during", "reason"),
    [
        ([], gauge(1, 0, 30), "gave 0 readings"),
        (gauge(1, 0, 30), [], "no readings .x. during the run"),
        (gauge(1, 0, 30), gauge(2, 50, 80), "while inferences ran"),
    ],
)
def test_readings_that_are_missing_are_named(idle, during, reason):
    with pytest.raises(EnergyUnavailableError, match=reason):
        gauge_energy(idle, during, run_of(100, 130), "x")


def test_both_ends_of_a_window_are_in_it():
    assert len(within(rails(0, 1, 1), 0.25, 0.75)) == 3
