"""Embeddings through the whole line: prune, distil, quantise, three runtimes; then pictures compared by the files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from phonefit.models.artifact import SUFFIXES, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.data.align import TEMPLATE
from phonefit.models.decoding import EmbeddingDecoding
from phonefit.models.weights import initialise
from phonefit.pipeline.cli import app
from phonefit.pipeline.run import run
from tests.tiny import SIZE, build

pytestmark = pytest.mark.xdist_group("embedding")  # its fixtures take long

PERSONS, EACH = 24, 6


def write_persons(folder: Path) -> Path:
    """A folder of pictures for each person: noisy ones of the person's colours, brighter or darker."""
    random = np.random.default_rng(0)
    for person in range(PERSONS):
        own = random.integers(30, 210, 3) + random.integers(-30, 31, (4, 4, 3))
        for picture in range(EACH):
            pixels = np.kron(own, np.ones((SIZE // 4, SIZE // 4, 1))) * random.uniform(0.7, 1.2)
            pixels += random.normal(0, 12, pixels.shape)
            path = folder / f"person{person:02}" / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedding")
    content = {
        "name": "persons",
        "model": {"factory": "tests.tiny:build"},
        "task": {"name": "embedding", "size": 16, "scale": 16, "margin": 0.2},
        "data": {
            "source": "image_folder",
            "path": str(write_persons(folder / "persons")),
            "input": {"height": SIZE, "resize": "stretch"},
            "split": {"validation": 0.3, "test": 0.3},
        },
        "finetune": {"epochs": 8, "learning_rate": 0.02, "freeze_epochs": 0, "batch_size": 16, "flip": "none"},
        "compress": [
            {"technique": "prune", "ratio": 0.2, "round_to": 4, "criterion": "taylor", "recover": {"epochs": 2}},
            {"technique": "distil", "epochs": 1},
            {"technique": "quantise", "calibration": {"samples": 24}, "qat": {"epochs": 1}},
        ],
        "convert": {"original": False, "parity": {"samples": 16, "cosine": 0.9, "snr_db": 6, "agreement": 0.5}},
        "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
        "budget": {"quality_drop": 1.0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return run(folder / "recipe.yaml", runs=folder / "runs"), folder


def test_every_file_verifies_persons_that_were_not_trained_on_better_than_chance(finished):
    trial, _ = finished
    assert trial.baseline == ("the same answer for every pair", 0.5)
    assert {(file.artifact.runtime, file.artifact.precision) for file in trial.files} == {
        (runtime, "int8") for runtime in ("executorch", "tflite", "onnx")
    }
    for file in trial.files:
        low, high = (file.quality[f"verification_accuracy_{end}"] for end in ("low", "high"))
        assert 0.7 < low <= file.quality["verification_accuracy"] <= high
        assert file.test_quality["verification_accuracy"] > 0.7
        assert file.quality["tar_at_far_0.001"] <= file.quality["tar_at_far_0.01"]
    assert trial.checkpoint_metrics["original"]["verification_accuracy"] > trial.quality_before


def test_no_person_is_on_two_sides(finished):
    _, folder = finished
    (listed,) = (folder / "runs" / "store" / "prepare").glob("*/pictures.json")
    names = json.loads(listed.read_text())["names"]
    persons = {side: {name.partition("/")[0] for name in own} for side, own in names.items()}
    assert sum(len(own) for own in persons.values()) == len(set().union(*persons.values())) == PERSONS


def test_the_identities_vectors_are_no_part_of_the_checkpoint(finished):
    (tuned,) = (finished[1] / "runs" / "store" / "finetune").iterdir()
    assert set(Checkpoint(tuned).load().state_dict()) == set(build(16).state_dict())


def test_a_checkpoint_starts_training_on_other_persons_with_all_it_knows(finished):
    (tuned,) = (finished[1] / "runs" / "store" / "finetune").iterdir()
    checkpoint, network = Checkpoint(tuned), build(16)
    initialise(network, checkpoint.info.architecture, str(tuned), ("ann", "bob"))
    known = checkpoint.load().state_dict()
    assert all(torch.equal(tensor, known[name]) for name, tensor in network.state_dict().items())


def test_each_file_carries_its_own_threshold(finished):
    _, folder = finished
    thresholds = set()
    for path in (folder / "runs" / "persons" / "files").glob("*.json"):
        artifact, _ = load_artifact(path)
        assert isinstance(artifact.decoding, EmbeddingDecoding)
        thresholds.add(artifact.decoding.threshold)
    assert len(thresholds) > 1


def test_the_page_of_errors_shows_pairs(finished):
    _, folder = finished
    page = (folder / "runs" / "persons" / "errors.html").read_text()
    assert "false accepts" in page
    assert 0 < page.count('class="pair"') * 2 == page.count('<img src="data:image/png;base64,')


class Commands:
    """The commands on the run of `finished`."""

    def __init__(self, folder):
        self.runs, self.pictures = folder / "runs", folder / "persons"
        self.runner = CliRunner()

    def __call__(self, *words):
        return self.runner.invoke(app, [*map(str, words), "--runs", str(self.runs)])

    def path(self, person, picture=0):
        return self.pictures / f"person{person:02}" / f"{picture}.png"


@pytest.fixture
def commands(finished):
    return Commands(finished[1])


@pytest.mark.parametrize("model", ["run", "file", "description"])
def test_two_pictures_are_compared_with_the_files_own_threshold(finished, commands, model):
    files = commands.runs / "persons" / "files"
    given = {
        "run": "persons",
        "file": files / "compressed-int8.tflite",
        "description": files / "compressed-int8.onnx.json",
    }
    right = 0
    for person in range(10):
        same = commands(
            "compare-faces", commands.path(person), commands.path(person, 1), "--model", given[model], "--json"
        )
        other = commands(
            "compare-faces", commands.path(person), commands.path(person + 10), "--model", given[model], "--json"
        )
        told = json.loads(same.stdout)
        assert told["same"] == (told["cosine"] >= told["threshold"]) == (same.exit_code == 0)
        assert {same.exit_code, other.exit_code} <= {0, 1}
        right += (same.exit_code == 0) + (other.exit_code == 1)
    assert right >= 15
    if model == "run":
        best = finished[0].shown
        assert told["model"] == f"{best.variant}-{best.artifact.precision}{SUFFIXES[best.artifact.runtime]}"


def test_a_picture_is_the_same_as_itself_also_in_part_and_turned(commands, tmp_path):
    path = commands.path(3)
    assert commands("compare-faces", path, path, "--model", "persons").stdout.startswith("the same: cosine 1.000")
    crop = ["--crop", "0,0,32,32"]
    assert commands("compare-faces", path, path, *crop, *crop, "--model", "persons").exit_code == 0
    large = Image.open(path).resize((112, 112), Image.Resampling.BICUBIC)
    large.rotate(90, expand=True).save(tmp_path / "turned.png")
    large.save(tmp_path / "upright.png")
    turned = np.column_stack([TEMPLATE[:, 1], 112 - TEMPLATE[:, 0]])  # a quarter turn against the clock
    marks = [",".join(f"{value:.2f}" for value in points.flatten()) for points in (TEMPLATE, turned)]
    words = ["compare-faces", tmp_path / "upright.png", tmp_path / "turned.png", "--model", "persons", "--json"]
    aligned = json.loads(commands(*words, "--landmarks", marks[0], "--landmarks", marks[1]).stdout)
    assert aligned["cosine"] > 0.99
    assert aligned["cosine"] > json.loads(commands(*words).stdout)["cosine"]


def test_who_is_enrolled_is_identified(commands, tmp_path):
    gallery = ["--gallery", tmp_path / "people", "--model", "persons"]
    for person in range(4):
        enrolled = commands("enrol", f"person {person}", *(commands.path(person, each) for each in range(3)), *gallery)
        assert enrolled.stdout.startswith(f"person {person}: 3 pictures")
    assert commands("enrol", "person 0", commands.path(0, 3), *gallery, "--json").exit_code == 0
    assert len(json.loads((tmp_path / "people" / "person 0.json").read_text())["vectors"]) == 4
    names = [
        json.loads(commands("identify", commands.path(each, 5), *gallery, "--json").stdout)["name"] for each in range(4)
    ]
    assert sum(name == f"person {each}" for each, name in enumerate(names)) >= 3
    again = commands("identify", commands.path(2, 1), *gallery)
    assert (again.exit_code, again.stdout[:8]) == (0, "person 2")


def test_what_cannot_be_compared_is_said(commands, tmp_path):
    one, people = commands.path(0), tmp_path / "people"
    files = commands.runs / "persons" / "files"
    cases = [
        (["compare-faces", one, tmp_path / "none.png", "--model", "persons"], "none.png: no such file"),
        (["compare-faces", one, one], "faces: no converted files"),
        (["compare-faces", one, one, "--model", "persons", "--crop", "0,0,9,9"], "1 × --crop for 2 pictures"),
        (["identify", one, "--gallery", people, "--model", "persons", "--crop", "0,0,99,9"], "nobody is enrolled"),
        (["identify", one, "--gallery", people, "--model", "persons", "--landmarks", "1,2,x"], "expected 10 numbers"),
        (["enrol", "../ann", one, "--gallery", people, "--model", "persons"], "cannot be the name of a file"),
        (["enrol", "ann", one, tmp_path, "--gallery", people, "--model", "persons"], str(tmp_path)),
    ]
    for words, message in cases:
        failed = commands(*words)
        assert (failed.exit_code, message in failed.stderr) == (2, True), failed.stderr
    assert not people.exists()
    assert commands("enrol", "ann", one, "--gallery", people, "--model", files / "compressed-int8.onnx").exit_code == 0
    other = commands("identify", one, "--gallery", people, "--model", files / "compressed-int8.tflite")
    assert (other.exit_code, "ann was enrolled with another model" in other.stderr) == (2, True)
    wrong = json.loads((files / "compressed-int8.onnx.json").read_text())
    for name in ("compressed-int8.onnx", "compressed-int8.onnx.json"):
        shutil.copy(files / name, tmp_path / name)
    wrong |= {"decoding": {"kind": "classification"}, "task": "classification"}
    (tmp_path / "compressed-int8.onnx.json").write_text(json.dumps(wrong))
    refused = commands("compare-faces", one, one, "--model", tmp_path / "compressed-int8.onnx")
    assert (refused.exit_code, "is a model for classification" in refused.stderr) == (2, True)
