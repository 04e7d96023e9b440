"""The best trial as a plain recipe: run anew in an empty folder it gives the same files and qualities."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from phonefit.pipeline.cli import app
from phonefit.pipeline.errors import BudgetError, RecipeError
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.export import chosen_trial
from phonefit.pipeline.search.result import SearchResult, SearchTrial
from phonefit.pipeline.search.study import search
from phonefit.pipeline.search.summary import read_result
from tests.integration.test_main_path import RECIPE, phonefit, write_recipe
from tests.integration.test_search_study import make_recipe, objective

PRUNE = {"technique": "prune", "ratio": 0.2, "round_to": 4, "recover": {"epochs": 1}}
QUANTISE = {"technique": "quantise", "calibration": {"samples": 24}}


def call(*words):
    done = phonefit(*map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stdout


def stable(trial):
    """Everything of a trial that is not a timing."""
    return [
        (file.name, file.artifact.sha256, file.artifact.bytes, file.checkpoint, file.quality, file.parity)
        for file in trial.files
    ]


def test_the_exported_recipe_gives_the_trial_again_to_the_digit(tmp_path):
    space = {
        "compress": [[PRUNE, QUANTISE], [QUANTISE]],
        "compress.0.ratio": [0.2, 0.3],
        "convert.runtimes": [["onnx"], ["onnx", "tflite"]],
        "model.arguments.channels": [12, 16],
        "finetune.learning_rate": {"low": 5e-3, "high": 2e-2, "log": True},
    }
    wanted = {"sampler": "random", "trials": 2, "objectives": ["quality", "bytes"], "space": space}
    recipe = write_recipe(tmp_path, model={**RECIPE["model"], "arguments": {"channels": 16}}, search=wanted)
    call("search", recipe, "--runs", tmp_path / "runs")
    result = read_result(load_recipe(recipe), tmp_path / "runs")
    assert [trial.state for trial in result.trials] == ["complete"] * 2
    best = chosen_trial(result).number
    numbers = [best, 1 - best]
    for number, choice in zip(numbers, ([], ["--trial", str(numbers[1])]), strict=True):
        out = tmp_path / f"{number}.yaml"
        call("export-best", recipe, "--runs", tmp_path / "runs", "--out", out, *choice)
        call("run", out, "--runs", tmp_path / f"fresh-{number}")  # another folder: nothing can be reused
        again = TrialResult.load(tmp_path / f"fresh-{number}" / f"tiny-trial-{number}" / "trial.json")
        assert not any(stage.reused for stage in again.stages if stage.stage == "finetune")
        assert stable(again) == stable(TrialResult.load(tmp_path / "runs" / "tiny" / "trials" / f"{number}.json"))


@pytest.fixture
def finished(tmp_path):
    """A search by formula; executorch is the fastest, and quality grows with the epochs."""
    space = {"finetune.epochs": [1, 2, 4], "convert.runtimes": [["executorch"], ["tflite"], ["onnx"]]}
    recipe = make_recipe(space=space, budget={"latency_p90_ms": 13})
    search(recipe, trials=9, runs=tmp_path / "runs", evaluate=objective)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(recipe.as_json()))
    return path, tmp_path / "runs"


def test_the_best_first_objective_of_what_fits_is_taken_and_the_comments_say_so(finished):
    path, runs = finished
    text = call("export-best", path, "--runs", runs)
    exported = yaml.safe_load(text)
    # By hand: 13 ms allow executorch with up to 3 epochs, and more epochs are better: 2 of 1, 2, 4.
    assert exported["finetune"]["epochs"] == 2
    assert exported["convert"]["runtimes"] == ["executorch"]
    assert "search" not in exported
    assert "of 9 of the search study (sampler tpe)" in text
    assert "of those that fit the budget it has the highest quality, of equals the best latency_p90_ms" in text
    assert "#   finetune.epochs = 2\n" in text
    assert "#   convert.runtimes = executorch\n" in text
    assert "\n# found by the search: finetune.epochs\nfinetune:\n" in text


def test_another_trial_can_be_taken_and_a_file_is_not_overwritten(finished, tmp_path):
    path, runs = finished
    over = next(trial for trial in read_result(load_recipe(path), runs).trials if not trial.feasible)
    out = tmp_path / "mine.yaml"
    content = json.loads(call("export-best", path, "--runs", runs, "--trial", over.number, "--out", out, "--json"))
    assert content["trial"]["number"] == over.number
    assert "it misses a limit of the budget" in out.read_text()
    exported = load_recipe(out)
    assert exported.as_json() == content["recipe"]
    expected = apply_overrides(load_recipe(path), over.parameters)
    assert exported.finetune == expected.finetune
    assert exported.convert.runtimes == expected.convert.runtimes
    done = CliRunner().invoke(app, ["export-best", str(path), "--runs", str(runs), "--out", str(out)])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["export-best", str(path), "--runs", str(runs), "--trial", "77"])
    assert done.exit_code == 2


def trial(number, quality, size, learned=True, excess=0.0):
    return SearchTrial(
        number=number,
        state="complete",
        parameters={},
        values={"quality": quality, "bytes": size},
        constraints={"file_size": excess},
        learned=learned,
    )


def result_of(*trials, pareto):
    return SearchResult(name="r", sampler="tpe", objectives=("quality", "bytes"), trials=trials, pareto=pareto)


def test_the_rule_of_choice():
    trials = (trial(0, 0.8, 9.0), trial(1, 0.9, 5.0), trial(2, 0.9, 4.0), trial(3, 0.95, 1.0, learned=False))
    assert chosen_trial(result_of(*trials, pareto=(0, 1, 2, 3))).number == 2
    assert chosen_trial(result_of(*trials, pareto=(3,))).number == 3  # nothing that can be trusted is there
    nothing = result_of(trial(0, 0.9, 5.0, excess=0.5), pareto=())
    with pytest.raises(BudgetError, match="take one all the same with --trial: 0"):
        chosen_trial(nothing)
    assert chosen_trial(nothing, 0).number == 0
    with pytest.raises(RecipeError, match="trial 5 does not exist; complete trials: 0"):
        chosen_trial(nothing, 5)
