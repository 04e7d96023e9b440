"""Counted figures in the size gate: exact, so any growth beyond their limit counts."""

import pytest

from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.size.gate import judge
from phonefit.pipeline.size.measured import measure_all
from phonefit.pipeline.size.sources import read_subjects
from tests.foreign_models import small_model
from tests.size_case import baseline, entry

pytestmark = pytest.mark.emulator
COUNTS = ("instructions", "bytes_moved", "peak_memory")


def counted(path, runs):
    (item,) = measure_all(read_subjects([str(path)]), lambda name: COUNTS, runs, SilentProgress())
    return item


def test_counts_repeat_exactly_in_another_folder_and_are_gated(tmp_path):
    path = small_model(tmp_path, "tflite")
    first, second = counted(path, tmp_path / "runs"), counted(path, tmp_path / "another/longer/place/for/runs")
    assert first.measures == second.measures
    assert set(first.measures) == set(COUNTS)
    assert all(value > 0 for value in first.measures.values())

    fewer = {name: value / 1.1 for name, value in first.measures.items()}
    blessed = entry(0, subject=str(path), **fewer)
    report = judge([first], baseline(**{first.name: blessed}), whole=True)
    levels = {finding.measure: finding.level for finding in report.results[0].findings}
    assert {levels[name] for name in COUNTS} == {"fail"}
