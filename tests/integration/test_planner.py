"""Planned compression on a tiny network: real training, conversion and files; the device is this machine."""

import io
import shutil

import pytest

from phonefit.device_bench.report import Figure
from phonefit.pipeline import ask, run
from phonefit.pipeline.budget import nothing_fits
from phonefit.pipeline.measure import measure
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.run import publish, run_trial
from phonefit.pipeline.search.study import search
from phonefit.pipeline.tables import trial_table
from tests.tiny import SIZE, write_folder

pytestmark = pytest.mark.xdist_group("planner")  # its fixtures take long


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with pictures, and with runs whose stages the tests share."""
    folder = tmp_path_factory.mktemp("planned")
    write_folder(folder / "pictures", per_class=20)
    return folder


def recipe_of(place, budget, search=None, **auto):
    data = {"source": "image_folder", "path": str(place / "pictures"), "input": {"height": SIZE, "resize": "stretch"}}
    planned = {"auto": True, "budget": budget, "techniques": ["prune", "quantise", "distil"], "tries": 2}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"factory": "tests.tiny:build", "arguments": {"channels": 64}},
            "data": {**data, "split": {"validation": 0.3, "test": 0.3}},
            "finetune": {"epochs": 2, "learning_rate": 0.01, "freeze_epochs": 0, "flip": "none"},
            "compress": {**planned, "calibration": {"samples": 16}, **auto},
            "convert": {
                "runtimes": ["onnx"],
                "original": False,
                "parity": {"samples": 4, "cosine": 0.5, "snr_db": -5, "agreement": 0.5},
            },
            "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
            "search": search or {},
        }
    )


SIZE_BUDGET = {"file_size": 30_000, "quality_drop": 0.2}


@pytest.fixture(scope="module")
def sized(place):
    return run_trial(recipe_of(place, SIZE_BUDGET), place / "runs")


def test_a_file_size_is_met(sized):
    plan = sized.plan
    assert plan.met
    assert len(plan.tries) <= 2
    assert sized.files[sized.best].artifact.bytes <= 30_000
    built = plan.tries[plan.chosen]
    assert built.asked  # its size was known before it was trained
    assert built.measured["file_size"] == built.expected["file_size"] == sized.files[0].artifact.bytes
    if built.estimated:
        assert built.corrections["file_size"] == pytest.approx(1, abs=0.1)


def test_the_steps_give_the_same_file_in_a_plain_recipe(sized, place, tmp_path):
    publish(sized, place / "runs", tmp_path / "tiny")
    plain = load_recipe(tmp_path / "tiny/planned.yaml")
    assert [step.technique for step in plain.steps] == [step["technique"] for step in sized.plan.steps]
    again = run_trial(plain, place / "runs")
    assert again.plan is None
    assert [file.artifact.sha256 for file in again.files] == [file.artifact.sha256 for file in sized.files]
    assert again.best == sized.best
    assert all(stage.reused for stage in again.stages)


def test_an_interrupted_run_goes_on_to_the_same_plan(sized, place, monkeypatch):
    shutil.rmtree(place / "again", ignore_errors=True)
    build, stopped = run._compress_and_measure, []

    def interrupted(*arguments):
        if not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return build(*arguments)

    monkeypatch.setattr(run, "_compress_and_measure", interrupted)
    recipe = recipe_of(place, SIZE_BUDGET)
    with pytest.raises(KeyboardInterrupt):
        run_trial(recipe, place / "again")
    scored = {path: path.stat().st_mtime_ns for path in (place / "again/store/plan_score").iterdir()}
    trial = run_trial(recipe, place / "again")
    assert trial.plan == sized.plan
    assert [file.artifact.sha256 for file in trial.files] == [file.artifact.sha256 for file in sized.files]
    assert {path: path.stat().st_mtime_ns for path in scored} == scored  # nothing was scored twice


@pytest.fixture
def counting(monkeypatch):
    """A device that counts: twelve instructions for each byte of the file, and some for the start."""

    def measure_standin(artifact, path, device, config, context, limit=None):
        stage, report = measure(artifact, path, device, config, context, limit)
        count = 100_000.0 + 12 * artifact.bytes
        figure = Figure(unit="instructions", source="counted", samples=(count,), note="a stand-in")
        return stage, report.model_copy(update={"figures": {**report.figures, "instructions": figure}})

    monkeypatch.setattr(run, "measure", measure_standin)
    monkeypatch.setattr(ask, "measure", measure_standin)


def test_instructions_are_met_although_they_do_not_follow_the_multiply_adds(place, counting):
    trial = run_trial(recipe_of(place, {"instructions": 500_000, "quality_drop": 0.2}), place / "runs")
    assert trial.plan.met
    assert len(trial.plan.tries) <= 2
    assert 100_000 < trial.plan.tries[-1].measured["instructions"] <= 500_000
    assert trial.plan.asked >= 2
    scaled = trial.plan.tries[-1]
    assert scaled.expected["instructions"] == scaled.measured["instructions"]


def test_a_quality_is_kept_with_a_small_file(place, sized):
    trial = run_trial(recipe_of(place, {"quality_drop": 0.05}), place / "runs")
    assert trial.plan.met
    assert trial.files[trial.best].quality_drop <= 0.05
    assert trial.files[trial.best].artifact.bytes < 150_000  # of 320,000 in float


def test_a_budget_out_of_reach_is_told_with_what_was_reached(place):
    trial = run_trial(recipe_of(place, {"file_size": 1_000}), place / "runs")
    assert trial.best is None
    assert not trial.plan.met
    assert len(trial.plan.tries) == 1  # a second could not do better
    (missed,) = trial.plan.tries[0].missed
    assert "file_size" in missed
    smallest = min(row.figures["file_size"] for row in trial.plan.candidates)
    assert trial.plan.tries[0].measured["file_size"] == pytest.approx(smallest, rel=0.2)
    assert "file_size: 0.0" in str(nothing_fits(trial.files))


def test_a_quality_that_is_too_low_is_recovered_longer(place, monkeypatch):
    evaluate_file = run.evaluate_file

    def evaluate_standin(artifact, path, side, context):
        """As if two epochs of recovery were needed."""
        stage, quality = evaluate_file(artifact, path, side, context)
        enough = any(step.stage == "distil" and int(step.config["epochs"]) >= 2 for step in artifact.lineage)
        return stage, {name: value - (0 if enough else 0.1) for name, value in quality.items()}

    monkeypatch.setattr(run, "evaluate_file", evaluate_standin)
    trial = run_trial(recipe_of(place, {"file_size": 30_000, "quality_drop": 0.05}), place / "runs")
    first, second = trial.plan.tries
    assert not first.met
    assert "quality_drop" in first.missed[0]
    assert second.name == f"{first.name}, 2x recovery"
    assert second.met
    assert trial.plan.chosen == 1
    assert trial.best is not None


def test_a_search_varies_the_recovery_of_a_plan(place):
    space = {"space": {"compress.recover.epochs": [0, 1]}, "trials": 2, "objectives": ["quality", "bytes"]}
    result = search(recipe_of(place, SIZE_BUDGET, space), runs=place / "runs")
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert all("file_size" in trial.constraints for trial in result.trials)


def test_the_table_fits_a_terminal(sized):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(trial_table(sized))
    text = console.export_text()
    assert "candidate" in text
    assert "plan that was built" in text
    assert max(map(len, text.splitlines())) <= 80
