"""Each task besides classification through the whole line: every technique, every converter, int8 included."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from phonefit.models.artifact import load_artifact
from phonefit.models.decoding import MultiLabelDecoding, RegressionDecoding
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.run import run
from phonefit.pipeline.search.study import search
from phonefit.pipeline.tables import trial_table
from phonefit.pipeline.tables_quality import quality_tables
from tests.tiny import SIZE

pytestmark = pytest.mark.xdist_group("tasks")  # its fixtures take long

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


TINY = {
    "model": {"factory": "tests.tiny:build"},
    "finetune": {"epochs": 6, "learning_rate": 0.02, "freeze_epochs": 0, "batch_size": 16},
    "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
}
PARITY = {"samples": 8, "cosine": 0.8, "snr_db": 3, "agreement": 0}


def data_of(table: Path) -> dict[str, object]:
    """The pictures of a table, with sides that are large enough to judge on."""
    split = {"validation": 0.3, "test": 0.3}
    return {"source": "csv", "path": str(table), "input": {"height": SIZE, "resize": "stretch"}, "split": split}


def write_pictures(folder: Path, column: str) -> Path:
    """Noise with a level of red of 0 to 120: the number; the labels say whether it is high, and whether green is."""
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    lines = [f"path,{column}"]
    for index in range(PICTURES):
        red, green = random.integers(0, 121, 2)
        pixels = random.integers(0, 100, (SIZE, SIZE, 3)) + np.array([red, green, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / f"{index:03}.png")
        labels = [name for name, level in (("red", red), ("green", green)) if level > 60]
        lines.append(f"pictures/{index:03}.png,{'|'.join(labels) if column == 'labels' else red}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module", params=TASKS)
def finished(request, tmp_path_factory):
    """A complete run over all three runtimes."""
    folder = tmp_path_factory.mktemp(request.param)
    asked = TASKS[request.param]
    content = TINY | {
        "name": request.param,
        "task": asked,
        "data": data_of(write_pictures(folder, "value" if asked["name"] == "regression" else "labels")),
        "compress": STEPS,
        "convert": {"original": False, "parity": PARITY},
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


@pytest.mark.parametrize(("template", "column"), [("ages", "age"), ("moderation", "labels")])
def test_a_shipped_template_runs_on_a_table_of_ones_own(template, column, tmp_path):
    table = write_pictures(tmp_path, column)
    recipe = load_recipe(template, [f"data.path={table}"])  # as a person would; made small for the test from here on
    split = {"data.split.validation": 0.3, "data.split.test": 0.3, "data.input.height": SIZE, "data.input.width": SIZE}
    steps = {
        "finetune.epochs": 8,
        "finetune.freeze_epochs": 0,
        "finetune.learning_rate": 0.05,
        "finetune.batch_size": 8,
    }
    files = {"convert": {"runtimes": ["tflite"], "original": False, "parity": PARITY}, "bench": TINY["bench"]}
    trial = run(apply_overrides(recipe, {"model": TINY["model"], **split, **steps, **files}), runs=tmp_path / "runs")
    (file,) = trial.files
    _, baseline = trial.baseline
    assert trial.merit(file.quality) > trial.merit({trial.quality_name: baseline})
    assert file.artifact.precision == "int8"
    if template == "ages":
        decoding = file.artifact.decoding
        assert (decoding.reads, decoding.unit, decoding.maximum) == ("expected_index", "years", 100)
        assert file.artifact.outputs[0].shape[-1] == 101
    else:
        assert all(file.quality[f"recall/{label}"] >= 0.95 for label in ("green", "red"))


def test_a_search_over_the_loss_of_a_regression_compares_its_errors(tmp_path):
    content = TINY | {
        "name": "losses",
        "task": {"name": "regression", "unit": "levels", "bins": 9},
        "data": data_of(write_pictures(tmp_path, "value")),
        "convert": {"runtimes": ["onnx"], "parity": PARITY},
        "search": {
            "sampler": "grid",
            "objectives": ["quality", "bytes"],
            "space": {"task.loss": ["l1", "expectation"]},
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    found = search(tmp_path / "recipe.yaml", trials=2, runs=tmp_path / "runs")
    outputs = {"l1": 1, "expectation": 9}
    assert {trial.parameters["task.loss"] for trial in found.trials} == set(outputs)
    for trial in found.trials:
        kept = TrialResult.load(tmp_path / "runs" / "losses" / "trials" / f"{trial.number}.json")
        assert kept.files[0].artifact.outputs[0].shape[-1] == outputs[trial.parameters["task.loss"]]
        assert trial.values["quality"] == -kept.files[0].quality["mean_absolute_error"] > -kept.baseline[1]
