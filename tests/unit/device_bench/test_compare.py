from pathlib import Path

import numpy as np
import pytest

from phonefit.device_bench.compare import UnlikeReportsError, compare
from phonefit.device_bench.report import Figure, Report

GOLDEN = Path(__file__).parents[2] / "golden"
STEADY = Report.load(GOLDEN / "report_1_steady.json").model_copy(update={"untrusted": ()})


def scaled(factor, report=STEADY):
    """The same report with every latency multiplied and a little noise of its own."""
    noise = np.random.default_rng(1).normal(1, 0.01, len(report.figures["latency"].samples))
    samples = tuple(float(sample) for sample in np.array(report.figures["latency"].samples) * noise * factor)
    latency = report.figures["latency"].model_copy(update={"samples": samples})
    return report.model_copy(update={"figures": {**report.figures, "latency": latency}, "model_name": "other.tflite"})


@pytest.mark.parametrize(
    ("factor", "outcome"),
    [(0.5, "faster"), (0.9, "faster"), (1.1, "slower"), (1.0, "no clear difference"), (1.03, "no clear difference")],
)
def test_outcome_and_interval(factor, outcome):
    result = compare(STEADY, scaled(factor))
    assert result.outcome == outcome
    assert result.median_ratio_low <= result.median_ratio <= result.median_ratio_high
    assert result.median_ratio == pytest.approx(factor, rel=0.02)
    assert outcome in result.verdict


def test_two_calls_agree():
    assert compare(STEADY, scaled(0.9)) == compare(STEADY, scaled(0.9))


def test_rows_give_both_values_with_unit_and_ratio():
    rows = {row.name: row for row in compare(STEADY, scaled(0.5)).rows}
    assert list(rows) == ["latency, median", "latency, p90", "load", "peak memory", "file size"]
    assert rows["file size"].ratio == 1
    assert rows["file size"].first == f"{STEADY.model_bytes / 1e6:.3f} MB"


def test_noise_wider_than_the_difference_is_no_verdict():
    def noisy(factor):
        samples = tuple(float(sample) for sample in np.linspace(0.5, 1.5, 20) * factor * 1e6)
        latency = Figure(unit="ns", source="measured", samples=samples)
        return STEADY.model_copy(update={"figures": {**STEADY.figures, "latency": latency}})

    assert compare(noisy(1), noisy(1.1)).outcome == "no clear difference"


def test_an_untrusted_report_is_named():
    busy = Report.load(GOLDEN / "report_1_busy.json")
    assert compare(STEADY, busy).untrusted == (busy.model_name,)
    assert busy.model_name in compare(STEADY, busy).verdict


def test_unlike_devices_are_refused():
    phone = STEADY.device.model_copy(update={"kind": "adb", "name": "Pixel 8"})
    with pytest.raises(UnlikeReportsError) as caught:
        compare(STEADY, STEADY.model_copy(update={"device": phone}))
    said = str(caught.value)
    assert f"device kind host against adb; device name {STEADY.device.name} against Pixel 8;" in said
    assert "architecture" not in said and "cores" not in said


def test_unlike_threads_and_sources_are_refused_together():
    other = STEADY.model_copy(
        update={
            "settings": {**STEADY.settings, "threads": 4},
            "figures": {**STEADY.figures, "latency": Figure(unit="instructions", source="counted", samples=(5.0,))},
        }
    )
    with pytest.raises(UnlikeReportsError, match=r"1 against 4 thread.*measured ns against counted instructions"):
        compare(STEADY, other)
