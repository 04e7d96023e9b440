"""Each task besides classification through the whole line: every technique, every converter, int8 included."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from phonefit.models.artifact import load_artifact
from phonefit.models.decoding import MultiLabelDecoding, RegressionDecoding
from phonefit.pipeline.run import run
from phonefit.pipeline.tables import trial_table
from phonefit.pipeline.tables_quality import quality_tables
from tests.tiny import SIZE

PICTURES = 90
STEPS = [
    {"technique": "prune", "ratio": 0.2, "round_to": 4, "criterion": "taylor", "recover": {"epochs": 1}},
    {"technique": "decompose", "energy": 0.99, "recover": {"epochs": 1}},
    {"technique": "distil", "epochs": 1},
    {
        "technique": "quantise",
        "calibration": {"samples": 24},
        "qat": {"epochs": 1},
        "mixed": {"quality_drop": 0.5},
    },
]
TASKS = {
    "regression": {"name": "regression", "unit": "levels", "loss": "huber", "minimum": 0},
    "expectation": {"name": "regression", "unit": "levels", "loss": "expectation", "bins": 9},
    "multi_label": {"name": "multi_label", "recall": 0.8},
}


def write_pictures(folder: Path, kind: str) -> Path:
    """Noise with a level of red of 0 to 120: the number; the labels say whether it is high, and whether green is."""
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    lines = ["path,value" if kind == "number" else "path,labels"]
    for index in range(PICTURES):
        red, green = random.integers(0, 121, 2)
        pixels = random.integers(0, 100, (SIZE, SIZE, 3)) + np.array([red, green, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / f"{index:03}.png")
        labels = [name for name, level in (("red", red), ("green", green)) if level > 60]
        lines.append(f"pictures/{index:03}.png,{red if kind == 'number' else '|'.join(labels)}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory):
    """A complete run over all three runtimes."""
    folder = tmp_path_factory.mktemp(request.param)
    asked = TASKS[request.param]
    content = {
        "name": request.param,
        "model": {"factory": "tests.tiny:build"},
        "task": asked,
        "data": {
            "source": "csv",
            "path": str(write_pictures(folder, "number" if asked["name"] == "regression" else "labels")),
            "input": {"height": SIZE, "resize": "stretch"},
            "split": {"validation": 0.3, "test": 0.3},
        },
        "finetune": {"epochs": 6, "learning_rate": 0.02, "freeze_epochs": 0, "batch_size": 16},
        "compress": STEPS,
        "convert": {"original": False, "parity": {"samples": 8, "cosine": 0.8, "snr_db": 3, "agreement": 0}},
        "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
        "budget": {"quality_drop": 1.0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return run(folder / "recipe.yaml", runs=folder / "runs"), folder / "runs" / request.param / "files"


def test_every_file_is_better_than_not_looking_at_the_pictures(finished):
    trial, _ = finished
    assert {file.artifact.runtime for file in trial.files} == {"executorch", "tflite", "onnx"}
    _, baseline = trial.baseline
    without = trial.merit({trial.quality_name: baseline})
    for file in trial.files:
        assert file.artifact.precision == "int8"
        assert trial.merit(file.quality) > without
        assert trial.merit(file.test_quality) > without
    assert trial.merit(trial.checkpoint_metrics["original"]) > trial.merit({trial.quality_name: trial.quality_before})


def test_the_drop_is_a_share_of_the_error_or_points_of_the_quality(finished):
    trial, _ = finished
    name = trial.quality_name
    original = trial.checkpoint_metrics["original"][name]
    for file in trial.files:
        lost = original - file.quality[name] if trial.quality_better == "higher" else file.quality[name] / original - 1
        assert file.quality_drop == pytest.approx(lost)
        assert file.drop_is_growth == (trial.quality_better == "lower")


def test_the_description_beside_each_file_says_how_its_outputs_are_read(finished):
    trial, folder = finished
    for path in folder.glob("*.json"):
        artifact, _ = load_artifact(path)
        decoding = artifact.decoding
        if trial.recipe["task"]["name"] == "regression":
            assert isinstance(decoding, RegressionDecoding)
            assert (decoding.unit, artifact.labels) == ("levels", ("value",))
        else:
            assert isinstance(decoding, MultiLabelDecoding)
            (file,) = [one for one in trial.files if one.artifact.runtime == artifact.runtime]
            assert [file.quality[f"threshold/{label}"] for label in artifact.labels] == list(decoding.thresholds)
            assert all(file.quality[f"recall/{label}"] >= 0.8 for label in artifact.labels)
            assert all(file.test_quality[f"threshold/{label}"] in decoding.thresholds for label in artifact.labels)


def test_tables_show_the_quality_in_its_unit(finished):
    trial, _ = finished
    console = Console(width=80, record=True)
    console.print(trial_table(trial), quality_tables(trial))
    text = console.export_text()
    assert "before adaptation" in text
    assert ("levels" in text) == (trial.recipe["task"]["name"] == "regression")
    assert ("average precision" in text) == (trial.recipe["task"]["name"] == "multi_label")
