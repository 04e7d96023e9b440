"""Measuring files for the gate: broken ones do not stop the rest, and a stale description tells nothing."""

import onnx
import pytest

from phonefit.models.artifact import Artifact
from phonefit.models.record import file_digest
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.errors import FileFormatError, RecipeError
from phonefit.pipeline.recipe_file import recipe_text
from phonefit.pipeline.size.measured import Measured, kept_copy, measure_all
from phonefit.pipeline.size.sources import Broken, read_subjects
from phonefit.pipeline.store import Store
from tests.foreign_models import small_model
from tests.golden.test_pipeline import GOLDEN


def measure(paths, runs):
    return list(measure_all(read_subjects([str(path) for path in paths]), lambda name: (), runs, SilentProgress()))


def test_a_damaged_file_does_not_stop_the_others(tmp_path):
    good = small_model(tmp_path, "onnx")
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"TFL3" * 5)
    broken, fine = measure([bad, good], tmp_path / "runs")
    assert isinstance(broken, Broken)
    assert "bad.tflite" in broken.error
    assert isinstance(fine, Measured)
    assert fine.figure("bytes") == good.stat().st_size == sum(fine.anatomy.sections().values())
    assert fine.figure("section:delegate:none") == 0


def test_each_measured_version_is_kept(tmp_path):
    path, store = small_model(tmp_path, "onnx"), Store(tmp_path / "runs")
    content, digest = path.read_bytes(), file_digest(path)
    measure([path], store.root)
    path.write_bytes(b"")
    assert kept_copy(digest, ".onnx", store).read_bytes() == content
    assert kept_copy("0" * 64, ".onnx", store) is None


def test_tools_are_those_of_the_file_that_was_described(tmp_path):
    path = small_model(tmp_path, "onnx")
    artifact = Artifact.load(GOLDEN / "artifact_1.json").model_copy(update={"sha256": file_digest(path)})
    artifact.save(path.with_name(f"{path.name}.json"))
    (described,) = measure([path], tmp_path / "runs")
    assert (described.tools, described.precision) == (artifact.tools, artifact.precision)
    model = onnx.load(str(path))
    model.producer_name = "someone else"
    onnx.save(model, str(path))
    (stale,) = measure([path], tmp_path / "runs")
    assert (stale.tools, stale.precision) == ({}, "")


def test_subjects_are_read_before_any_work(tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        read_subjects([str(tmp_path / "none.pte")])
    with pytest.raises(RecipeError, match="two recipes are named demo"):
        (tmp_path / "a.yaml").write_text(recipe_text("demo"))
        read_subjects(["demo", str(tmp_path / "a.yaml")])
