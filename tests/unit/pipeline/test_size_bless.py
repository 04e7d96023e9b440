"""Blessing: what is written, what keeps its reason, what is refused."""

import dataclasses
import datetime

import onnx
import pytest

from phonefit.device_bench.device import MeasurementError
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.errors import GateError, RecipeError
from phonefit.pipeline.size.baseline import load_baseline, load_lock
from phonefit.pipeline.size.bless import bless
from phonefit.pipeline.size.check import CheckOptions, check
from phonefit.pipeline.size.history import load_history
from tests.foreign_models import small_model
from tests.size_case import NOW

LATER = NOW + datetime.timedelta(days=3)


@pytest.fixture
def options(tmp_path):
    return CheckOptions(tmp_path / "sizes.toml", tmp_path / "runs", NOW)


def accept(paths, reason, options):
    return bless([str(path) for path in paths], reason, (), options, SilentProgress())[1]


def rename_producer(path, name):
    model = onnx.load(str(path))
    model.producer_name = name
    onnx.save(model, str(path))


def test_only_what_changed_gets_the_new_date_and_reason(tmp_path, options):
    one = small_model(tmp_path, "onnx")
    other = tmp_path / "other.onnx"
    other.write_bytes(one.read_bytes())
    assert accept([one, other], "first", options) == (str(one), str(other))
    assert accept([], "nothing changed", options) == ()
    rename_producer(one, "a longer name than before")
    assert accept([], "renamed", dataclasses.replace(options, now=LATER)) == (str(one),)
    artifacts = load_baseline(options.baseline).artifacts
    assert [(artifacts[str(path)].reason, artifacts[str(path)].blessed) for path in (one, other)] == [
        ("renamed", LATER.date()),
        ("first", NOW.date()),
    ]
    assert artifacts[str(one)].sha256 == load_lock(options.baseline).artifacts[str(one)].sha256
    assert [line.reason for line in load_history(options.history_file)] == ["first", "first", "renamed"]


def test_an_artifact_that_is_gone_leaves_the_baseline(tmp_path, options):
    one = small_model(tmp_path, "onnx")
    accept([one], "first", options)
    other = one.rename(tmp_path / "other.onnx")
    text = options.baseline.read_text()
    options.baseline.write_text(text.replace(f'subjects = ["{one}"]', f'subjects = ["{other}"]'))
    assert check([], options, SilentProgress()).status == "warn"
    assert accept([], "another name", options) == (str(other), str(one))
    assert set(load_baseline(options.baseline).artifacts) == {str(other)}
    assert check([], options, SilentProgress()).exit_code(strict=True) == 0


def test_nothing_is_written_without_a_reason_a_whole_file_or_room_in_the_budget(tmp_path, options):
    one = small_model(tmp_path, "onnx")
    with pytest.raises(RecipeError, match="--reason is empty"):
        accept([one], " \n", options)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(one.read_bytes()[:100])
    with pytest.raises(MeasurementError, match="nothing was blessed: 1 could not be measured"):
        accept([one, broken], "first", options)
    assert not options.baseline.exists()
    options.baseline.write_text('[[limits]]\nbudget = "1KB"\n')
    with pytest.raises(GateError, match="does not lift a budget"):
        accept([one], "first", options)
    assert load_baseline(options.baseline).artifacts == {}
