"""The budget: what is missed, by how much, and which file is the best."""

import math
from dataclasses import replace

import pytest

from phonefit.device_bench.device import DeviceInfo, MeasurementError
from phonefit.device_bench.report import Figure, Report
from phonefit.models.artifact import Artifact
from phonefit.pipeline.budget import (
    Figures,
    best_file,
    describe,
    figures_of,
    margins,
    memory_limit,
    nothing_fits,
    parse_bytes,
    violations,
)
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.result import FileResult, Parity
from tests.tiny import LABELS, PREPROCESS

FIGURES = Figures(bytes=4_000_000, peak_memory=30_000_000, latency_p90=12.0, quality_drop=0.02)


def file_result(quality: float, milliseconds: float, missed=(), runtime="onnx") -> FileResult:
    latency = Figure(unit="ns", source="measured", samples=(milliseconds * 1e6,) * 3)
    report = Report(
        model_sha256="0" * 64,
        model_bytes=1,
        model_name="model",
        runtime=runtime,
        device=DeviceInfo(kind="host", name="cpu", architecture="x", cores=2, ram_bytes=1, operating_system="os"),
        settings={},
        figures={"latency": latency, "peak_memory": Figure(unit="bytes", source="measured", samples=(1.0,))},
    )
    artifact = Artifact(
        file="model.onnx", runtime=runtime, backend="cpu", precision="fp32", sha256="0" * 64, bytes=1, inputs=(),
        outputs=(), task="classification", labels=LABELS, preprocess=PREPROCESS,
    )  # fmt: skip
    return FileResult(
        variant="compressed", artifact=artifact, path="x", checkpoint="c", quality={"accuracy": quality},
        quality_drop=0.0, parity=Parity(samples=1, cosine=1, snr_db=None, agreement=1), report=report,
        violations=missed,
    )  # fmt: skip


def test_no_limits_nothing_missed():
    assert violations(FIGURES, BudgetConfig()) == ()


def test_limits_exactly_met_are_met():
    budget = BudgetConfig(
        file_size=4_000_000,
        peak_memory=30_000_000,
        latency_p90_ms=12,
        quality_drop=0.02,
        ram=300_000_000,
        ram_share=0.1,
    )
    assert violations(FIGURES, budget) == ()


def test_each_limit_is_checked_and_the_worst_comes_first():
    budget = BudgetConfig(
        file_size="3MB", peak_memory="10MB", latency_p90_ms=11.9, quality_drop=0.01, ram="100MB", ram_share=0.1
    )
    missed = violations(FIGURES, budget)
    assert {item.limit_name for item in missed} == {"ram", "peak_memory", "file_size", "latency_p90_ms", "quality_drop"}
    assert [item.excess for item in missed] == sorted((item.excess for item in missed), reverse=True)
    assert missed[0].excess == pytest.approx(2.0)


def test_best_is_the_fastest_of_those_equally_good():
    files = [file_result(0.90, 20), file_result(0.89, 5), file_result(0.70, 1)]
    assert best_file(files, "accuracy", samples=400) == 1


def test_a_clear_quality_lead_beats_speed():
    files = [file_result(0.90, 20), file_result(0.80, 5)]
    assert best_file(files, "accuracy", samples=400) == 0


def test_of_an_error_less_is_better_within_its_standard_error():
    def with_error(error, milliseconds):
        ends = {"mean_absolute_error_low": error - 0.196, "mean_absolute_error_high": error + 0.196}
        file = file_result(0.0, milliseconds)
        return file.model_copy(update={"quality": {"mean_absolute_error": error, **ends}})

    files = [with_error(4.0, 20), with_error(4.09, 5), with_error(4.3, 1)]
    assert best_file(files, "mean_absolute_error", 400, "lower") == 1  # its standard error is 0.1
    assert best_file(files[::2], "mean_absolute_error", 400, "lower") == 0


def test_the_drop_of_an_error_is_told_as_its_growth():
    file = file_result(0.9, 1).model_copy(update={"quality_drop": 0.05, "drop_is_growth": True})
    (missed,) = violations(figures_of(file), BudgetConfig(quality_drop=0.02))
    assert describe(missed) == "quality_drop: +5.00%, limit +2.00% of the error, missed by 150 %"


def test_files_over_budget_are_never_best():
    missed = violations(FIGURES, BudgetConfig(file_size="1MB"))
    assert best_file([file_result(0.99, 1, missed), file_result(0.5, 50)], "accuracy", 100) == 1
    assert best_file([file_result(0.99, 1, missed)], "accuracy", 100) is None


def test_nothing_fits_names_limit_excess_and_remedy():
    near = file_result(0.9, 1, violations(FIGURES, BudgetConfig(file_size="3MB")), runtime="tflite")
    far = file_result(0.9, 1, violations(FIGURES, BudgetConfig(file_size="1MB")))
    error = nothing_fits([far, near])
    text = str(error)
    assert error.exit_code == 1
    assert "nearest is compressed tflite fp32" in text
    assert "file_size: 4.00 MB, limit 3.00 MB, missed by 33 %" in text
    assert "quantise" in text


def test_rounding_never_makes_a_limit_missed():
    budget = BudgetConfig(quality_drop=0.01)
    figures = Figures(bytes=1, peak_memory=1, latency_p90=1, quality_drop=0.87 - 0.86)  # 0.010000000000000009
    assert margins(figures, budget) == {"quality_drop": 0.0}
    assert violations(figures, budget) == ()


def test_margins_are_signed():
    assert margins(FIGURES, BudgetConfig(file_size="8MB")) == {"file_size": pytest.approx(-0.5)}


def test_a_process_that_the_limit_ended_misses_it_though_it_never_got_past():
    budget = BudgetConfig(peak_memory="30MB", latency_p90_ms=20)
    ended = Figures(bytes=1, peak_memory=29_000_000, latency_p90=math.inf, quality_drop=0, out_of_memory=True)
    assert [item.limit_name for item in violations(ended, budget)] == ["peak_memory"]
    assert margins(ended, budget) == {"peak_memory": 1.0}


def test_the_enforced_limit_is_the_lower_one():
    assert memory_limit(BudgetConfig(ram="1GB", ram_share=0.1)) == 100_000_000
    assert memory_limit(BudgetConfig(ram="1GB", ram_share=0.1, peak_memory="50MB")) == 50_000_000
    assert memory_limit(BudgetConfig(file_size="1MB")) is None


def test_sizes_in_words():
    assert parse_bytes("24MB") == 24_000_000
    with pytest.raises(RecipeError, match="'lots' is not a size"):
        parse_bytes("lots")


def test_energy_is_a_limit_that_says_whether_it_is_modelled():
    budget = BudgetConfig(energy_uj=1000)
    modelled = replace(FIGURES, energy=1500.0, energy_source="modelled")
    (missed,) = violations(modelled, budget)
    assert missed.limit_name == "energy_uj" and missed.excess == pytest.approx(0.5)
    assert "1,500 uJ (modelled), limit 1,000 uJ (modelled)" in describe(missed)
    assert violations(replace(FIGURES, energy=900.0, energy_source="measured"), budget) == ()


def test_an_energy_limit_without_a_figure_is_neither_met_nor_missed():
    charging = replace(FIGURES, energy_source="USB power is connected")
    with pytest.raises(MeasurementError, match=r"budget.energy_uj = 1000 cannot be checked: USB power is connected"):
        violations(charging, BudgetConfig(energy_uj=1000))
    assert violations(charging, BudgetConfig()) == ()
    assert margins(replace(charging, out_of_memory=True, latency_p90=math.inf), BudgetConfig(energy_uj=1000)) == {}


def test_the_energy_of_a_file_is_that_of_its_report():
    file = file_result(0.9, 1)
    energy = Figure(unit="uJ", source="modelled", samples=(42.0,), method="modelled")
    peak = Figure(unit="bytes", source="measured", samples=(1.0,))
    figures = {**file.report.figures, "peak_memory": peak, "energy": energy}
    file = file.model_copy(update={"report": file.report.model_copy(update={"figures": figures})})
    assert (figures_of(file).energy, figures_of(file).energy_source) == (42.0, "modelled")
