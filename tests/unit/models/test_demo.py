"""The packaged demo photographs."""

import sys

import pytest

from phonefit.models.data import SourceConfig, demo, load_data
from phonefit.models.errors import DataError
from tests.data_cases import demo_case


def test_the_demo_photographs_are_what_the_package_says():
    data = demo_case(None).load()
    probabilities = {name: value for name, value, _ in demo._lines(demo.package_folder() / "labels.csv")}
    assert len(probabilities) == 2624
    for sample in data.samples:
        assert data.labels[sample.label] == ("functional" if probabilities[sample.name] < 0.5 else "defective")
        assert data.read(sample).size == (300, 300)


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(DataError, match=r"make setup, or pip install elpv-dataset"):
        load_data("demo", SourceConfig())


def test_the_types_of_cells_are_classes_too():
    data = load_data("demo", SourceConfig(limit=8, column="cell"))
    cells = {name: cell for name, _, cell in demo._lines(demo.package_folder() / "labels.csv")}
    assert data.labels == ("monocrystalline", "polycrystalline")
    assert all(data.labels[sample.label].startswith(cells[sample.name]) for sample in data.samples)
    with pytest.raises(DataError, match="no column 'age' for this task"):
        load_data("demo", SourceConfig(column="age"))
