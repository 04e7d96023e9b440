"""A search that is steered by counts is the same search on every run, whatever else this machine does.

Needs `make emulator`.
"""

import json

import pytest

from phonefit.device_bench.report import Report
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.screening_architecture import EXACT_SLACK
from tests.integration.test_main_path import phonefit, write_recipe

pytestmark = pytest.mark.emulator
SEARCH = {
    "compress": [],
    "finetune": {"epochs": 1, "learning_rate": 0.01, "freeze_epochs": 0},
    "bench": {"device": "emulator:counts", "attempts": 1},
    "search": {
        "sampler": "tpe",
        "trials": 3,
        "objectives": ["quality", "latency_p90_ms", "instructions", "peak_memory", "bytes"],
        "space": {
            "convert.runtimes": [["executorch"], ["tflite"], ["onnx"]],
            "compress": [[], [{"technique": "quantise", "calibration": {"samples": 24}}]],
        },
    },
}


def told(trial):
    """Everything that a study is told of a trial; not how long its stages took."""
    parts = ("number", "state", "parameters", "values", "constraints", "file", "test_quality", "trusted", "reason")
    return {name: trial[name] for name in parts}


def measured(path):
    """Of each file: what it is, and every sample of every figure."""
    return [
        (file.name, file.artifact.sha256, file.quality, file.parity, file.report.figures, file.report.device)
        for file in TrialResult.load(path).files
    ]


def test_two_searches_from_nothing_give_the_same_trials_and_front(tmp_path):
    recipe = write_recipe(tmp_path, **SEARCH)
    found = []
    for name in ("first", "second"):
        done = phonefit("search", str(recipe), "--workers", "1", "--json", "--runs", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    first, second = found
    assert [told(trial) for trial in first["trials"]] == [told(trial) for trial in second["trials"]]
    assert first["pareto"] == second["pareto"] and first["pareto"]
    complete = [trial["number"] for trial in first["trials"] if trial["state"] == "complete"]
    assert len(complete) == 3 and not all(trial["stages_reused"] for trial in second["trials"])
    for number in complete:
        once, again = (measured(tmp_path / name / f"tiny/trials/{number}.json") for name in ("first", "second"))
        assert once == again
        values = first["trials"][number]["values"]
        assert values["instructions"] > 10_000 and values["latency_p90_ms"] > 0


def test_the_table_of_a_search_shows_the_instructions(tmp_path):
    recipe = write_recipe(tmp_path, **SEARCH)
    changes = ("convert.runtimes=[tflite]", "search.objectives=[quality, instructions]", "search.trials=1")
    done = phonefit("search", str(recipe), *changes, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "instructions ↓" in done.stdout and " M " in done.stdout


def test_what_counts_too_many_instructions_is_not_trained(tmp_path):
    """The counts with random weights, against which the budget is held, are those of the trained file."""
    search = {
        "trials": 2,
        "objectives": ["quality"],
        "space": {"model.arguments": [{"channels": 16}, {"channels": 48}]},
    }
    changes = {**SEARCH, "search": search, "convert": {"runtimes": ["onnx"]}, "budget": {"instructions": 1_500_000}}
    recipe = write_recipe(tmp_path, **changes)
    done = phonefit("search", str(recipe), "--json", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    trials = {trial["parameters"]["model.arguments"]["channels"]: trial for trial in json.loads(done.stdout)["trials"]}
    assert (trials[48]["state"], trials[48]["ended_by"]) == ("ended", "architecture")
    assert "instructions" in trials[48]["reason"] and trials[16]["state"] == "complete"
    reports = [Report.load(path) for path in (tmp_path / "runs/store/measure").glob("*/report.json")]
    random, trained, large = sorted(report.figures["instructions"].samples[0] for report in reports)
    assert large > 1_500_000 > trained
    assert random == pytest.approx(trained, rel=EXACT_SLACK / 4)
