"""Reports that earlier versions wrote still load."""

import json
from pathlib import Path

import pytest

from phonefit.device_bench.report import Report
from phonefit.models.errors import FileFormatError

FILES = sorted((Path(__file__).parents[2] / "golden").glob("report_*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_report_loads_and_keeps_its_content(path, tmp_path):
    report = Report.load(path)
    assert report.median_milliseconds() <= report.p90_milliseconds()
    assert report.peak_memory_bytes() > 0
    report.save(tmp_path / "again.json")
    stored, kept = json.loads(path.read_text()), json.loads((tmp_path / "again.json").read_text())
    assert _of_the_same_names(kept, stored) == stored  # newer fields have their defaults


def _of_the_same_names(value, model):
    if not isinstance(model, dict):
        return value
    return {name: _of_the_same_names(value[name], item) for name, item in model.items()}


def test_there_are_stored_reports():
    assert len(FILES) == 2


def test_a_report_of_a_later_version_is_refused(tmp_path):
    content = json.loads(FILES[0].read_text())
    (tmp_path / "new.json").write_text(json.dumps({**content, "schema_number": 99}))
    with pytest.raises(FileFormatError, match=r"schema 99.*update phonefit"):
        Report.load(tmp_path / "new.json")
