"""The published ages through the shipped recipe, and on real photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from phonefit.models import decode
from phonefit.models.data.align import cropped
from phonefit.models.data.picture import open_picture
from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.decoding import RegressionDecoding
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.weights import initialise
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.recipe_steps import DistilConfig, StudentConfig
from phonefit.pipeline.run import open_context
from tests.face_age_case import AGES, cuts, write_weights
from tests.face_photographs import FACES, FOLDER, write_photographs

SPEC = model_spec("face_age")
ARCHITECTURE = Architecture(family="face_age", outputs=1, height=112, width_pixels=112)


def published() -> torch.nn.Module:
    network = build_network(ARCHITECTURE).eval()
    assert initialise(network, ARCHITECTURE, "pretrained", (), RegressionDecoding()).startswith("100% of the param")
    return network


def ages(network: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(normalise(pixels, SPEC.preprocess))).numpy()[:, 0]


def test_the_recipe_without_epochs_says_the_published_ages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path)
    random, lines = np.random.default_rng(0), ["path,age"]
    for index in range(20):
        Image.fromarray(random.integers(0, 256, (120, 100, 3), dtype=np.uint8)).save(f"{index}.png")
        lines.append(f"{index}.png,{random.integers(20, 70)}")
    Path("ages.csv").write_text("\n".join(lines) + "\n")
    asked = ["model.family=face_age", "task.loss=huber", "data.path=ages.csv", "finetune.epochs=0"]
    recipe = load_recipe("ages", [*asked, "data.input={height: 112, width: 112}"])
    context = open_context(recipe, tmp_path / "runs", SilentProgress())
    _, checkpoint = finetune(recipe, context)
    assert checkpoint.info.preprocess == SPEC.preprocess
    decoding = checkpoint.info.decoding
    assert isinstance(decoding, RegressionDecoding)
    assert decoding.scale > 5  # the outputs are not years
    expected = ages(published(), context.data.pixels("validation"))
    outputs = ages(checkpoint.load(), context.data.pixels("validation"))
    numbers = [decode.number(output, decoding) for output in outputs]
    np.testing.assert_allclose(numbers, expected, atol=0.01)
    wrong = np.abs(expected - context.data.targets("validation"))
    assert checkpoint.info.metrics["mean_absolute_error"] == pytest.approx(wrong.mean(), abs=0.01)

    student = StudentConfig(family="face_age", weights="pretrained")
    _, distilled = compress_step(checkpoint, DistilConfig(student=student, epochs=1), context, checkpoint)
    notes = "".join(distilled.info.lineage[-1].config["notes"])
    assert "the student is a new face_age: 100% of the parameters from" in notes
    assert "the head is new" not in notes


@pytest.mark.faces
def test_it_says_what_face_api_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    assert float(ages(published(), pixels)[0]) == pytest.approx(79.1227, abs=1e-3)  # of face-api.js on these pixels


@pytest.mark.faces
def test_the_ages_of_photographs_are_near_those_of_the_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    photographs = write_photographs(tmp_path)
    faces = [apply(cropped(open_picture(path), FACES[name]), SPEC.preprocess) for name, path in photographs.items()]
    wrong = np.abs(ages(published(), np.stack(faces)) - [AGES[name] for name in photographs])
    assert wrong.max() < 8
    assert wrong.mean() < 4


@pytest.mark.faces
def test_another_cut_of_a_face_moves_its_age_by_some_years_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    network = published()
    for name, path in write_photographs(tmp_path).items():
        faces = np.stack([apply(face, SPEC.preprocess) for face in cuts(open_picture(path), name, 8)])
        assert ages(network, faces).std() < 5
