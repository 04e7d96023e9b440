"""The search over real Optuna studies on disk. The objective is a formula: what is tested is the search itself."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from phonefit.device_bench.device import DeviceInfo, MeasurementError
from phonefit.device_bench.report import Doubt, Figure, Report
from phonefit.models.artifact import Artifact
from phonefit.models.record import digest_of
from phonefit.pipeline.budget import Figures, violations
from phonefit.pipeline.errors import ParityError, RecipeError, StoreError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.result import FileResult, Parity, StageUse, TrialResult
from phonefit.pipeline.search import claims
from phonefit.pipeline.search.result import SearchResult
from phonefit.pipeline.search.study import SearchStoppedError, search
from phonefit.pipeline.search.table import search_table
from tests.tiny import LABELS, PREPROCESS

ROOT = Path(__file__).parents[2]
DEVICE = DeviceInfo(
    kind="host", name="formula", architecture="x86_64", cores=2, ram_bytes=8 << 30, operating_system="Linux"
)
SPACE = {
    "finetune.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "finetune.epochs": {"low": 1, "high": 8, "integer": True},
    "convert.runtimes": [["executorch"], ["tflite"], ["onnx"]],
}


def make_recipe(space=SPACE, **changes):
    wanted = {"space": space, "trials": 8, "objectives": ["quality", "latency_p90_ms"]}
    sections = {"name": "study", "finetune": {"epochs": 5}, "search": wanted, **changes}
    return Recipe(model={"family": "resnet18"}, data={"source": "demo"}, **sections)


def objective(recipe, trusted=True):
    """A trial by formula: more epochs raise quality and latency, each runtime has its own speed."""
    runtime = recipe.convert.runtimes[0]
    epochs = recipe.finetune.epochs
    quality = 0.6 + 0.04 * epochs - abs(recipe.finetune.learning_rate - 0.01)
    latency = (10 + epochs) * {"executorch": 1.0, "tflite": 1.5, "onnx": 2.0}[runtime]
    report = Report(
        model_sha256="0" * 64,
        model_bytes=1_000_000,
        model_name="model",
        runtime=runtime,
        device=DEVICE,
        settings={},
        figures={
            "latency": Figure(unit="ns", source="measured", samples=(latency * 1e6,)),
            "peak_memory": Figure(unit="bytes", source="measured", samples=(3e6,)),
        },
        untrusted=() if trusted else (Doubt(reason="the machine was busy", remedy="measure again"),),
    )
    artifact = Artifact(
        file="model", runtime=runtime, backend="formula", precision="fp32", sha256="0" * 64, bytes=1_000_000,
        inputs=(), outputs=(), task="classification", labels=LABELS, preprocess=PREPROCESS,
    )  # fmt: skip
    missed = violations(Figures(1e6, 3e6, latency, 0.0), recipe.budget)
    file = FileResult(
        variant="original", artifact=artifact, path="model", checkpoint="0" * 64,
        parity=Parity(samples=1, cosine=1.0, snr_db=None, agreement=1.0),
        quality={"accuracy": quality}, quality_drop=0.0, report=report, violations=missed,
    )  # fmt: skip
    stages = (
        StageUse(stage="finetune", key="a", reused=True, seconds=30.0),
        StageUse(stage="convert", key="b", reused=False, seconds=2.0),
    )
    return TrialResult(
        recipe=recipe.as_json(), recipe_digest=digest_of(recipe.as_json()), quality_name="accuracy",
        checkpoint_metrics={}, files=(file,), best=None if missed else 0, stages=stages,
    )  # fmt: skip


def points(result, state="complete"):
    return [dict(trial.parameters) for trial in result.trials if trial.state == state]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_recipe_and_seed_try_the_same_points(tmp_path, sampler):
    recipe = apply_overrides(make_recipe(), {"search.sampler": sampler, "search.trials": 10})
    first = search(recipe, runs=tmp_path / "a", evaluate=objective)
    second = search(recipe, runs=tmp_path / "b", evaluate=objective)
    other = search(apply_overrides(recipe, {"seed": 1}), runs=tmp_path / "c", evaluate=objective)
    assert points(first) == points(second)
    assert points(first) != points(other)
    assert len({json.dumps(point) for point in points(first)}) == 10


def test_results_are_on_disk_and_agree_with_optuna(tmp_path):
    recipe = make_recipe(budget={"latency_p90_ms": 20})
    result = search(recipe, trials=10, runs=tmp_path, evaluate=objective)
    folder = tmp_path / "study"
    assert SearchResult.load(folder / "search.json") == result
    for trial in result.trials:
        kept = TrialResult.load(folder / "trials" / f"{trial.number}.json")
        assert kept.files[0].quality["accuracy"] == trial.values["quality"]
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    assert set(result.pareto) == {trial.number for trial in stored.best_trials}
    assert result.stages_reused == 10
    assert result.seconds_saved == 10 * 30.0


def test_the_front_is_that_of_the_whole_space_once_every_point_is_tried(tmp_path):
    space = {"finetune.epochs": [1, 2, 4], "convert.runtimes": [["executorch"], ["tflite"], ["onnx"]]}
    recipe = make_recipe(space=space, budget={"latency_p90_ms": 17})
    result = search(recipe, trials=50, runs=tmp_path, evaluate=objective)
    assert len(points(result)) == 9
    assert "9 points" in result.note
    # By hand: only executorch with up to 4 epochs and tflite with 1 are within 17 ms, and tflite is slower than both.
    front = [dict(trial.parameters) for trial in result.trials if trial.number in result.pareto]
    assert sorted(front, key=lambda point: point["finetune.epochs"]) == [
        {"finetune.epochs": epochs, "convert.runtimes": ["executorch"]} for epochs in (1, 2, 4)
    ]
    over = [trial for trial in result.trials if trial.values and not trial.feasible]
    assert over
    assert all(trial.constraints["latency_p90_ms"] > 0 for trial in over)


def test_trials_are_counted_over_calls_and_points_are_never_tried_twice(tmp_path):
    calls = []

    def counting(recipe):
        calls.append((recipe.finetune.epochs, recipe.convert.runtimes))
        return objective(recipe)

    space = {"finetune.epochs": [1, 2, 4, 8, 16], "convert.runtimes": SPACE["convert.runtimes"]}
    recipe = make_recipe(space=space)
    search(recipe, trials=4, runs=tmp_path, evaluate=counting)
    again = search(recipe, trials=4, runs=tmp_path, evaluate=counting)
    assert len(calls) == 4
    search(recipe, trials=12, runs=tmp_path, evaluate=counting)
    assert len(calls) == len(set(calls)) == 12
    assert len(points(again)) == 4


BLOCKING = """
import sys
from pathlib import Path
from phonefit.pipeline.search.study import search
from tests.integration.test_search_study import make_recipe, objective
done = []
def evaluate(recipe):
    if len(done) == int(sys.argv[2]):
        print("blocked", flush=True)
        sys.stdin.read()
    done.append(recipe)
    return objective(recipe)
search(make_recipe(), runs=Path(sys.argv[1]), evaluate=evaluate)
"""


def start_blocking(runs, after):
    command = [sys.executable, "-c", BLOCKING, str(runs), str(after)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_search_goes_on_with_the_point_that_it_lost(tmp_path):
    undisturbed = search(make_recipe(), runs=tmp_path / "undisturbed", evaluate=objective)
    with start_blocking(tmp_path, 3) as process:
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(signal.SIGKILL)
    result = search(make_recipe(), runs=tmp_path, evaluate=objective)
    assert [trial.state for trial in result.trials] == ["complete"] * 3 + ["interrupted"] + ["complete"] * 5
    assert result.trials[4].parameters == result.trials[3].parameters
    assert points(result) == points(undisturbed)


def test_a_trial_of_a_living_process_is_left_to_it(tmp_path):
    with start_blocking(tmp_path, 3) as process:
        assert process.stdout.readline() == "blocked\n"
        during = search(make_recipe(), runs=tmp_path, evaluate=objective)
        process.stdin.close()
        assert process.wait() == 0
    assert [trial.state for trial in during.trials] == ["complete"] * 3 + ["running"] + ["complete"] * 4
    after = SearchResult.load(tmp_path / "study" / "search.json")
    assert [trial.state for trial in after.trials] == ["complete"] * 8


def run_search(runs, trials):
    search(make_recipe(), trials=trials, runs=runs, evaluate=objective)


def test_two_processes_share_a_study(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=run_search, args=(tmp_path, 16)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    result = SearchResult.load(tmp_path / "study" / "search.json")
    assert len(points(result)) == 16
    assert len({json.dumps(point) for point in points(result)}) == 16


def test_a_point_that_keeps_killing_its_process_is_given_up(tmp_path, monkeypatch):
    with start_blocking(tmp_path, 0) as process:
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(signal.SIGKILL)
    monkeypatch.setattr(claims, "ATTEMPTS", 1)
    result = search(make_recipe(), trials=3, runs=tmp_path, evaluate=objective)
    assert [trial.state for trial in result.trials] == ["failed", "complete", "complete"]
    assert "out of memory" in result.trials[0].reason


def test_a_failed_trial_keeps_its_reason_and_the_search_goes_on(tmp_path):
    def parity_fails_on_tflite(recipe):
        if recipe.convert.runtimes == ("tflite",):
            raise ParityError(f"tflite: cosine {recipe.finetune.learning_rate:.6f}, limit 0.98")
        return objective(recipe)

    result = search(make_recipe(), trials=12, runs=tmp_path, evaluate=parity_fails_on_tflite)
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert failed
    assert len(failed) + len(points(result)) == 12
    assert all("tflite: cosine" in trial.reason and trial.values is None for trial in failed)
    assert not {trial.number for trial in failed} & set(result.pareto)


def test_the_same_failure_three_times_in_a_row_stops_and_is_tried_again(tmp_path):
    calls = []

    def phone_is_unplugged_after_two(recipe):
        calls.append(recipe)
        if len(calls) > 2:
            raise MeasurementError("phone XYZ: not connected")
        return objective(recipe)

    with pytest.raises(SearchStoppedError, match=r"trials 2, 3, 4 failed in a row.*XYZ") as caught:
        search(make_recipe(), runs=tmp_path, evaluate=phone_is_unplugged_after_two)
    assert caught.value.exit_code == MeasurementError.exit_code
    assert len(calls) == 5
    stopped = SearchResult.load(tmp_path / "study" / "search.json")
    lost = points(stopped, "interrupted")
    assert len(lost) == 3
    result = search(make_recipe(), runs=tmp_path, evaluate=objective)
    assert len(points(result)) == 8
    assert points(result)[2:5] == lost


def test_ctrl_c_keeps_what_is_finished_and_queues_the_rest(tmp_path):
    calls = []

    def interrupted_at_third(recipe):
        calls.append(recipe)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return objective(recipe)

    with pytest.raises(KeyboardInterrupt):
        search(make_recipe(), runs=tmp_path, evaluate=interrupted_at_third)
    result = search(make_recipe(), trials=3, runs=tmp_path, evaluate=objective)
    assert [trial.state for trial in result.trials] == ["complete", "complete", "interrupted", "complete"]
    assert result.trials[3].parameters == result.trials[2].parameters


def test_untrusted_measurements_are_kept_and_marked(tmp_path):
    result = search(make_recipe(), trials=2, runs=tmp_path, evaluate=partial(objective, trusted=False))
    assert [trial.trusted for trial in result.trials] == [False, False]
    assert all(trial.values for trial in result.trials)


def test_a_missing_figure_fails_the_trial_and_says_which(tmp_path):
    def without_memory(recipe):
        result = objective(recipe)
        figures = {"latency": result.files[0].report.figures["latency"]}
        file = result.files[0].model_copy(
            update={"report": result.files[0].report.model_copy(update={"figures": figures})}
        )
        return result.model_copy(update={"files": (file,), "best": 0})

    recipe = apply_overrides(make_recipe(), {"search.objectives": ["quality", "peak_memory"]})
    result = search(recipe, trials=1, runs=tmp_path, evaluate=without_memory)
    assert "no figure for the objective peak_memory" in result.trials[0].reason


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"search.space": {"finetune.epochs": [1, 2]}}, "search.space.finetune.learning_rate"),
        ({"search.objectives": ["quality", "bytes"]}, "search.objectives"),
        ({"finetune.batch_size": 16}, "finetune.batch_size: the study has 32, the recipe 16"),
        ({"budget.latency_p90_ms": 9}, "budget.latency_p90_ms"),
    ],
)
def test_a_study_of_something_else_is_refused(tmp_path, change, place):
    search(make_recipe(), trials=1, runs=tmp_path, evaluate=objective)
    with pytest.raises(RecipeError, match="name=study-2") as caught:
        search(apply_overrides(make_recipe(), change), trials=2, runs=tmp_path, evaluate=objective)
    assert place in str(caught.value)


def test_what_changes_no_figure_may_change_between_calls(tmp_path):
    search(make_recipe(), trials=2, runs=tmp_path, evaluate=objective)
    changed = apply_overrides(make_recipe(), {"search.sampler": "random", "finetune.epochs": 3, "description": "new"})
    assert len(points(search(changed, trials=3, runs=tmp_path, evaluate=objective))) == 3


def test_a_damaged_study_is_a_clear_error(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.db").write_text("not a database, " * 100)
    with pytest.raises(StoreError, match=r"study\.db.*not a database"):
        search(make_recipe(), runs=tmp_path, evaluate=objective)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="no permission"):
        search(make_recipe(), runs=tmp_path / "runs", evaluate=objective)


def test_nothing_to_search_is_a_clear_error(tmp_path):
    with pytest.raises(RecipeError, match=r"search\.space is empty"):
        search(make_recipe(space={}), runs=tmp_path, evaluate=objective)


def test_a_runs_folder_with_odd_characters_works(tmp_path):
    runs = tmp_path / "50% of a?b #c"
    assert len(points(search(make_recipe(), trials=2, runs=runs, evaluate=objective))) == 2
    assert (runs / "study" / "study.db").is_file()


def test_the_table_shows_the_front_in_words(tmp_path):
    steps = [[], [{"technique": "prune", "ratio": 0.25, "recover": {"epochs": 0}}, {"technique": "quantise"}]]
    recipe = make_recipe(space={"compress": steps}, budget={"latency_p90_ms": 20})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(search_table(search(recipe, runs=tmp_path, evaluate=objective)))
    text = console.export_text()
    assert "compress = prune(ratio=0.25, recover=(epochs=0)) + quantise" in text
    assert "compress = nothing" in text
    assert "2 of 4 stages were in the store (60 s not spent again)" in text
    assert "every one of the 2 points" in text
    impossible = make_recipe(space={"compress": steps}, budget={"latency_p90_ms": 5}, name="impossible")
    console.print(search_table(search(impossible, runs=tmp_path, evaluate=objective)))
    text = console.export_text()
    assert "no trial meets the whole budget; the nearest is trial 0, it misses latency_p90_ms by 200%" in text
