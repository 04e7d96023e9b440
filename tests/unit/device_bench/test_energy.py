import math

import pytest

from phonefit.device_bench.energy import (
    EnergyUnavailableError,
    GaugeSample,
    RailSample,
    Spent,
    detect_gauge,
    drain_percent,
    drain_sentence,
    figure,
    gauge_spent,
    modelled,
    per_inference,
    rail_spent,
    refuse_charging,
    unavailable,
)
from phonefit.device_bench.power_parsers import parse_battery, parse_power_supply, parse_supplies
from phonefit.device_bench.rails import rail_names, rail_samples


def gauge(readings, step=1.0, microvolts=4_000_000):
    return [
        GaugeSample(seconds=index * step, current_raw=reading, microvolts=microvolts)
        for index, reading in enumerate(readings)
    ]


def discharging(**fields):
    lines = {"status": 3, "level": 50, "USB powered": "false", **fields}
    return parse_battery("".join(f"  {name}: {value}\n" for name, value in lines.items()))


@pytest.mark.parametrize(
    ("readings", "microamperes"),
    [
        ([-412_500] * 6, -1),  # as Android asks
        ([398_000] * 6, 1),  # the other sign
        ([-350, -351, -349, -350, -352], -1000),  # mA
        ([350] * 5, 1000),
        ([-412_500] * 30 + [1200], -1),  # one odd reading is noise
        ([0, 0, *[-300_000] * 5], -1),  # zeros tell nothing
    ],
)
def test_sign_and_unit_of_the_current_are_found(readings, microamperes):
    assert detect_gauge(gauge(readings)).microamperes == microamperes


@pytest.mark.parametrize(
    ("readings", "reason"),
    [
        ([], "gave 0 readings"),
        ([0] * 20, "gave 0 readings"),
        ([-400_000, 400_000] * 5, "sign of the current changed in 50%"),
    ],
)
def test_a_gauge_that_cannot_be_trusted_is_refused(readings, reason):
    with pytest.raises(EnergyUnavailableError, match=reason):
        detect_gauge(gauge(readings))


def test_one_watt_for_ten_seconds_is_ten_joules_whatever_the_sign_and_unit():
    for reading in (-250_000, 250_000, -250, 250):
        samples = gauge([reading] * 11)
        spent = gauge_spent(samples, detect_gauge(samples))
        assert spent.microjoules == pytest.approx(10e6) and spent.seconds == 10


def test_power_that_rises_is_integrated_between_the_readings():
    samples = gauge([-100_000, -200_000, -300_000, -400_000, -500_000])
    assert gauge_spent(samples, detect_gauge(samples)).microjoules == pytest.approx(4 * 0.3 * 4e6)


def test_repeated_readings_do_not_make_a_gauge_look_surer():
    fresh = gauge([-400_000, -420_000, -380_000, -410_000, -390_000])
    stale = gauge([reading.current_raw for reading in fresh for _ in range(10)], step=4 / 49)
    errors = [gauge_spent(samples, detect_gauge(samples)).standard_error for samples in (fresh, stale)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)


def test_rails_count_from_their_first_reading():
    spent = rail_spent([RailSample(seconds=index, microjoules=7e9 + 2e6 * index) for index in range(6)])
    assert spent.microjoules == pytest.approx(10e6) and spent.standard_error == pytest.approx(0, abs=1)


def test_a_rail_counter_that_was_set_back_is_refused():
    samples = [RailSample(seconds=index, microjoules=value) for index, value in enumerate([5, 6, 1, 2, 3])]
    with pytest.raises(EnergyUnavailableError, match="went backwards"):
        rail_spent(samples)


def spent(seconds, microjoules, error=0.0, source="rail"):
    return Spent(source=source, seconds=seconds, microjoules=microjoules, standard_error=error)


def test_idling_is_taken_off_and_both_errors_count():
    estimate = per_inference(spent(10.5, 21e6, 30_000), spent(10.0, 10e6, 40_000), 1000)
    assert estimate.microjoules == pytest.approx(10_500)
    assert estimate.uncertainty_microjoules == pytest.approx(1.96 * math.hypot(30, 42))
    assert estimate.above_idle and "1000 inferences in 10.5 s" in estimate.note


def test_what_drowns_in_the_noise_is_said_to():
    estimate = per_inference(spent(10, 10.1e6, 100_000), spent(10, 10e6, 100_000), 100)
    assert not estimate.above_idle and "cannot be told apart from idling" in estimate.note


@pytest.mark.parametrize(
    ("run", "idle", "inferences", "reason"),
    [
        (spent(10, 1), spent(5, 1), 10, "must be equal"),
        (spent(10, 1), spent(10, 1, source="gauge"), 10, "by rail, the baseline by gauge"),
        (spent(10, 1), spent(10, 1), 0, "no inference"),
    ],
)
def test_a_comparison_that_would_mislead_is_refused(run, idle, inferences, reason):
    with pytest.raises(EnergyUnavailableError, match=reason):
        per_inference(run, idle, inferences)


@pytest.mark.parametrize(
    ("battery", "reason"),
    [
        (discharging(status=2, **{"USB powered": "true"}), "USB power is connected.*Wi-Fi"),
        (discharging(**{"AC powered": "true"}), "AC power"),
        (discharging(status=2), "battery is charging"),
        (discharging(status=5), "battery is full"),
        (parse_battery("  (UPDATES STOPPED -- use 'reset' to restart)\n  level: 50\n  status: 3\n"), "faked"),
    ],
)
def test_no_energy_from_a_gauge_while_charging(battery, reason):
    with pytest.raises(EnergyUnavailableError, match=reason):
        refuse_charging(battery)


def test_a_battery_that_discharges_is_accepted_unless_the_kernel_disagrees():
    refuse_charging(discharging(), parse_power_supply("POWER_SUPPLY_STATUS=Discharging\n"))
    with pytest.raises(EnergyUnavailableError):
        refuse_charging(discharging(), parse_power_supply("POWER_SUPPLY_STATUS=Charging\n"))


def test_the_drain_in_words_a_person_understands():
    # 4000 mAh x 3.85 V = 55,440 J: 1,000 inferences of 55.44 mJ are 0.1 %
    assert drain_percent(55_440, 4_000_000) == pytest.approx(0.1)
    estimate = per_inference(spent(10, 65.44e6, 500_000), spent(10, 10e6), 1000)
    shown = drain_sentence(estimate.microjoules, estimate.uncertainty_microjoules, 4_000_000)
    assert shown == "1,000 inferences take 0.1 ± 0.0018 % of the 4,000 mAh battery"
    with pytest.raises(EnergyUnavailableError, match="capacity is not known"):
        drain_percent(1, 0)


def test_a_model_is_never_shown_as_a_measurement():
    estimate = modelled({"instructions": 50e6, "dram_bytes": 4e6}, {"instructions": 20, "dram_bytes": 100}, "a table")
    assert estimate.microjoules == pytest.approx(1400)
    shown = figure(estimate)
    assert shown.source == "modelled" and "±" not in shown.note
    assert "(modelled)" in drain_sentence(estimate.microjoules, None, 4_000_000, modelled=True)
    with pytest.raises(EnergyUnavailableError, match="no cost for dram_bytes"):
        modelled({"dram_bytes": 1}, {}, "a table")


def test_figures_of_a_report_name_their_source():
    measured = figure(per_inference(spent(10, 20e6, 1e5), spent(10, 10e6, 1e5), 1000))
    assert (measured.unit, measured.source, measured.samples) == ("uJ", "measured", (10_000,))
    assert measured.note.startswith("rail:") and "(95 %)" in measured.note
    assert unavailable("no gauge").samples == () and unavailable("no gauge").source == "unavailable"


@pytest.fixture(scope="module")
def trace():
    """A trace as a phone with power rails writes it: descriptors once, then readings every 100 ms."""
    perfetto_trace_pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    content = perfetto_trace_pb2.Trace()
    content.packet.add().timestamp = 1  # a packet about something else
    rails = content.packet.add().power_rails
    for index, (name, subsystem) in enumerate([("S2M_VDD_CPUCL0", "cpu"), ("S3M_VDD_MIF", "ddr")]):
        rails.rail_descriptor.add(index=index, rail_name=name, subsys_name=subsystem, sampling_rate=1023)
    for step in range(6):
        packet = content.packet.add().power_rails
        for index, rate in enumerate((1000, 200)):
            packet.energy_data.add(index=index, timestamp_ms=5000 + 100 * step, energy=10**9 + rate * step)
    return content.SerializeToString()


def test_power_rails_are_read_from_a_trace(trace):
    assert rail_names(trace) == {"S2M_VDD_CPUCL0": "cpu", "S3M_VDD_MIF": "ddr"}
    assert rail_spent(rail_samples(trace)).microjoules == pytest.approx(6000)
    assert rail_spent(rail_samples(trace, ["S3M_VDD_MIF"])).microjoules == pytest.approx(1000)
    with pytest.raises(EnergyUnavailableError, match="no rail GPU; the trace has: S2M_VDD_CPUCL0, S3M_VDD_MIF"):
        rail_samples(trace, ["GPU"])


@pytest.mark.parametrize(("content", "reason"), [(b"no trace at all", "no Perfetto trace"), (b"", "no readings")])
def test_a_file_without_power_rails(trace, content, reason):
    with pytest.raises(EnergyUnavailableError, match=reason):
        rail_samples(content)


def test_without_a_battery_service_the_kernel_must_say_that_it_discharges():
    supplies = parse_supplies(
        "supply /sys/class/power_supply/usb\ntype USB\n"
        "supply /sys/class/power_supply/bms\ntype Battery\nstatus Discharging\ncurrent_now -350000\n"
    )
    usb, battery = supplies
    assert (usb.kind, usb.current_raw, battery.current_raw, battery.microvolts) == ("USB", None, -350_000, None)
    refuse_charging(None, battery)
    for unclear in (None, usb):
        with pytest.raises(EnergyUnavailableError, match="not discharging"):
            refuse_charging(None, unclear)


def test_figures_compare_only_with_their_like():
    gauge_figure = figure(per_inference(spent(10, 20e6, source="gauge"), spent(10, 1e6, source="gauge"), 10))
    rail_figure = figure(per_inference(spent(10, 20e6), spent(10, 1e6), 10))
    model = figure(modelled({"a": 1}, {"a": 1}, "x"))
    assert gauge_figure.like(gauge_figure) and not gauge_figure.like(rail_figure) and not model.like(rail_figure)
    assert not unavailable("x").like(unavailable("x"))
