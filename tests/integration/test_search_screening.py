"""Cheap before dear on real trials of the tiny network: where a trial ends, and that a kept one is what it was."""

import io
import json
import signal
import subprocess
import sys

import optuna
import pytest
from rich.console import Console

from phonefit.models.artifact import Artifact
from phonefit.pipeline.checks import JudgedFile
from phonefit.pipeline.errors import TrialEndedError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import Parity, TrialResult
from phonefit.pipeline.search import screening, screening_architecture
from phonefit.pipeline.search.latency_predictor import layer_sums
from phonefit.pipeline.search.result import SearchResult
from phonefit.pipeline.search.screening import Screening, predictors_of
from phonefit.pipeline.search.study import search
from phonefit.pipeline.search.summary import summarise_study
from phonefit.pipeline.search.summary_table import summary_table
from tests.integration.test_main_path import RECIPE, ROOT
from tests.tiny import ARCHITECTURE, LABELS, PREPROCESS, build, tiny_checkpoint, write_folder

ONE, SEVERAL = ["quality"], ["quality", "bytes"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "pictures", per_class=20)


def make_recipe(pictures, space, objectives=SEVERAL, checks=None, **changes):
    return Recipe.model_validate(
        {
            **RECIPE,
            "compress": [],
            "convert": {**RECIPE["convert"], "runtimes": ["onnx"]},
            "bench": {"repeats": 2, "warmups": 0, "attempts": 1},
            "data": {**RECIPE["data"], "path": str(pictures)},
            "search": {
                "sampler": "grid", "trials": 9, "objectives": objectives, "space": space, "screening": checks or {},
            },
            **changes,
        }
    )  # fmt: skip


OFF = {"architecture": "off", "before_device": False}


def kept(runs, result):
    """Everything of the complete trials that is not measured: point -> files, qualities, parity, keys of the stages."""
    found = {}
    for trial in result.trials:
        if trial.state == "complete":
            measured = TrialResult.load(runs / result.name / "trials" / f"{trial.number}.json")
            files = [
                (file.name, file.artifact.sha256, file.checkpoint, file.quality, file.quality_drop, file.parity)
                for file in measured.files
            ]
            keys = [(stage.stage, stage.key) for stage in measured.stages if stage.stage != "measure"]
            found[json.dumps(trial.parameters)] = (files, keys)
    return found


def stages(runs, stage):
    folder = runs / "store" / stage
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_what_cannot_fit_is_not_trained_and_what_can_is_the_same(tmp_path, pictures):
    space = {"model.arguments": [{"channels": 16}, {"channels": 48}]}
    asked = {"budget": {"file_size": 40_000}, "finetune": {**RECIPE["finetune"], "epochs": 1}}
    off = search(make_recipe(pictures, space, checks=OFF, **asked), runs=tmp_path / "off")
    on = search(make_recipe(pictures, space, **asked), runs=tmp_path / "on")
    large = next(trial for trial in on.trials if trial.parameters["model.arguments"] == {"channels": 48})
    assert (large.state, large.ended_by, large.file) == ("ended", "architecture", None)
    assert "file_size" in large.reason and "limit 0.04 MB" in large.reason
    assert stages(tmp_path / "on", "finetune") == 1
    assert stages(tmp_path / "on", "measure") == 1
    assert len(on.trials) == len(off.trials) == 2  # it counts, and is not tried again
    assert large.number not in on.pareto
    assert on.pareto and [on.trials[place].parameters for place in on.pareto] == [
        off.trials[place].parameters for place in off.pareto
    ]
    whole, reduced = kept(tmp_path / "off", off), kept(tmp_path / "on", on)
    assert len(whole) == 2 and len(reduced) == 1
    assert reduced.items() <= whole.items()
    # Its weights alone miss the limit: it is not converted, and the size that was held against it is nearly the file's.
    assert stages(tmp_path / "on", "convert") == 2 and stages(tmp_path / "off", "convert") == 2
    excess = next(trial for trial in off.trials if trial.parameters == large.parameters).constraints["file_size"]
    assert 0.95 * excess < large.constraints["file_size"] < excess
    assert large.avoided == {"finetune": 1, "convert": 1, "evaluate": 1, "measure": 1}
    usual = next(trial for trial in on.trials if trial.state == "complete").stage_seconds
    assert large.seconds_avoided == pytest.approx(sum(usual[stage] for stage in large.avoided))
    console = Console(width=120, record=True, file=io.StringIO())
    summary = summarise_study(make_recipe(pictures, space, **asked), tmp_path / "on")
    console.print(summary_table(summary))
    text = " ".join(console.export_text().split())
    assert [(check.check, check.trials) for check in summary.checks] == [("architecture", (large.number,))]
    assert "1 trials were ended early: about" in text and "the checks took" in text


def test_two_workers_end_what_cannot_fit(tmp_path, pictures):
    space = {"model.arguments": [{"channels": 16}, {"channels": 48}, {"channels": 64}]}
    asked = {"budget": {"file_size": 40_000}, "finetune": {**RECIPE["finetune"], "epochs": 1}}
    result = search(make_recipe(pictures, space, **asked), runs=tmp_path, workers=2)
    how = {trial.parameters["model.arguments"]["channels"]: (trial.state, trial.ended_by) for trial in result.trials}
    assert how == {16: ("complete", None), 48: ("ended", "architecture"), 64: ("ended", "architecture")}
    assert stages(tmp_path, "finetune") == stages(tmp_path, "measure") == 1


def test_a_file_that_misses_a_limit_is_not_measured(tmp_path, pictures):
    prune = {"technique": "prune", "ratio": 0.8, "layer_limit": 0.9, "round_to": 2, "recover": {"epochs": 0}}
    space = {"compress": [[], [prune]]}
    recipe = make_recipe(pictures, space, budget={"quality_drop": 0.02})
    result = search(recipe, runs=tmp_path)
    pruned = next(trial for trial in result.trials if trial.parameters["compress"])
    assert (pruned.state, pruned.ended_by) == ("ended", "before device")
    assert "quality_drop" in pruned.reason and pruned.avoided == {"measure": 1}
    assert stages(tmp_path, "evaluate") == 3  # both on the validation side, and the front on the test side
    assert stages(tmp_path, "measure") == 1
    assert search(recipe, runs=tmp_path).trials == result.trials  # nothing is left to do


RATES = {"finetune.learning_rate": [0.01, 1e-5, 1e-7]}
EPOCHS = {"epochs": 4, "learning_rate": 0.01, "freeze_epochs": 0, "flip": "none"}
PROMOTE = {**OFF, "promotion": {"factor": 2}}
KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search.study import search

class Killing(SilentProgress):
    trainings = 0

    @contextmanager
    def stage(self, title, total=None):
        self.trainings += title == "finetune"

        def advance(steps=1, note=""):
            if sys.argv[2:] == ["kill"] and self.trainings == 2 and note.startswith("epoch 2/4 accuracy"):
                os.kill(os.getpid(), signal.SIGKILL)

        yield advance

search(Recipe.model_validate_json(sys.stdin.read()), runs=Path(sys.argv[1]), progress=Killing())
"""


def decided(result):
    """How each point ended; interrupted trials are none."""
    return [
        (
            trial.parameters,
            trial.state,
            trial.ended_by,
            trial.reason,
            trial.avoided,
            (trial.values or {}).get("quality"),
        )
        for trial in result.trials
        if trial.state != "interrupted"
    ]


def test_the_worse_ones_of_a_rung_stop_also_after_a_kill_and_from_the_store(tmp_path, pictures):
    recipe = make_recipe(pictures, RATES, checks=PROMOTE, finetune=EPOCHS)  # seed 0 begins with the highest rate
    off = search(make_recipe(pictures, RATES, checks=OFF, finetune=EPOCHS), runs=tmp_path / "off")
    on = search(recipe, runs=tmp_path / "on")
    assert on.trials[0].parameters == {"finetune.learning_rate": 0.01}
    assert [trial.state for trial in on.trials] == ["complete", "ended", "ended"]
    first = on.trials[1]
    assert first.ended_by == "promotion" and first.avoided["finetune"] == 2
    assert "after epoch 2 of 4" in first.reason and "of 2 trials" in first.reason
    assert on.pareto == (0,)
    assert kept(tmp_path / "on", on).items() <= kept(tmp_path / "off", off).items()
    assert not list((tmp_path / "on/store/resume").iterdir())

    # In processes of their own: the code behind the network is that which a process has loaded.
    for words, code in ((["kill"], -signal.SIGKILL), ([], 0)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / "killed"), *words],
            cwd=ROOT, input=recipe.model_dump_json(), text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == code
    resumed = SearchResult.load(tmp_path / "killed/tiny/search.json")
    assert [trial.state for trial in resumed.trials].count("interrupted") == 1
    assert decided(resumed) == decided(on)

    # Every training is in the store: what is decided does not depend on it, with one objective nor with several.
    again = search(recipe.model_copy(update={"name": "again"}), runs=tmp_path / "off")
    assert decided(again) == decided(on)
    single = make_recipe(pictures, RATES, objectives=ONE, checks=PROMOTE, finetune=EPOCHS, name="single")
    result = search(single, runs=tmp_path / "off")
    assert [trial.state for trial in result.trials] == ["complete", "ended", "ended"]
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/off/single/study.db")
    pruned = stored.get_trials(states=[optuna.trial.TrialState.PRUNED])
    assert [list(trial.intermediate_values) for trial in pruned] == [[1, 2], [1, 2]]  # the sampler uses the last


COUNTED = {"format": "onnx fp32", "milliseconds": 1.0, "energy": None}


@pytest.mark.parametrize(
    ("known", "how"),
    [
        ([], "converted"),  # nobody to compare with
        ([(6, 990)], "converted"),  # does less, and keeps the limit: nothing follows
        ([(6, 1_150)], "converted"),  # misses it by less than a network that does more may cost less
        ([(6, 1_300)], "ended"),
        ([(8, 1_300)], "ended"),  # as much
        ([(10, 1_300)], "converted"),  # does more, and misses it: nothing follows
        ([(10, 800)], "goes on"),
        ([(10, 900)], "converted"),
        ([(10, 800), (6, 300)], "goes on"),
    ],
)
def test_what_other_networks_counted_spares_the_conversion(tmp_path, monkeypatch, known, how):
    recipe = make_recipe(
        tmp_path, {"finetune.epochs": [1, 2]}, budget={"instructions": 1_000}, bench={"device": "emulator:counts"}
    )
    study = optuna.create_study(directions=["maximize", "minimize"])
    for channels, instructions in known:
        sums = layer_sums(build(len(LABELS), channels), ARCHITECTURE)
        costs = [{**COUNTED, "sums": sums, "instructions": instructions}]
        study.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                user_attrs={"ended": {"ended_by": "architecture", "reason": "", "avoided": {}}, "costs": costs},
            )
        )
    network = screening_architecture.Untrained(
        checkpoint=tiny_checkpoint(tmp_path / "checkpoint"), slack=0.0, stored_bytes=1_000, biases=0,
        sums=layer_sums(build(len(LABELS), 8), ARCHITECTURE),
    )  # fmt: skip
    converted = []
    monkeypatch.setattr(screening_architecture, "untrained_network", lambda *arguments: network)
    monkeypatch.setattr(screening_architecture, "expected_files", lambda *arguments: converted.append(1) or ())
    trial = study.ask()
    checks = Screening(study, trial, recipe)
    if how == "ended":
        with pytest.raises(TrialEndedError, match="instructions"):
            checks.before_training(recipe, None, None)
        assert trial.constraints["instructions"] == pytest.approx(1.3 / 1.2 - 1)
    else:
        checks.before_training(recipe, None, None)
    assert bool(converted) is (how == "converted")


def add_finished(study, channels, milliseconds, quality):
    """A finished trial as a study holds it."""
    sums = layer_sums(build(len(LABELS), channels), ARCHITECTURE)
    study.add_trial(
        optuna.create_trial(
            values=[quality, milliseconds],
            user_attrs={
                "notes": {"file": "original onnx fp32", "latencies": {"original onnx fp32": milliseconds}},
                "layers": {"original onnx fp32": {"group": "onnx fp32, threads 1", "sums": sums}},
            },
        )
    )
    return sums


def judged(folder, quality):
    artifact = Artifact(
        file="model", runtime="onnx", backend="none", precision="fp32", sha256="0" * 64, bytes=1_000,
        inputs=(), outputs=(), task="classification", labels=LABELS, preprocess=PREPROCESS,
    )  # fmt: skip
    parity = Parity(samples=1, cosine=1.0, snr_db=None, agreement=1.0)
    metrics = {"accuracy": quality}
    return JudgedFile("original", tiny_checkpoint(folder), artifact, folder / "model", parity, metrics, 0.0, None)


@pytest.mark.parametrize(("reports", "quality", "ended"), [(9, 0.8, True), (9, 0.95, False), (5, 0.8, False)])
def test_a_predicted_latency_spares_the_device_once_there_are_enough_reports(tmp_path, reports, quality, ended):
    """The latencies grow with the multiply-adds; trial 0 is faster and, at 0.9, better than a file of 0.8."""
    recipe = make_recipe(
        tmp_path, {"finetune.epochs": [1, 2]}, objectives=["quality", "latency_p90_ms"], checks={"predictor": True}
    )
    study = optuna.create_study(directions=["maximize", "minimize"])
    for place in range(reports):
        channels = 4 + 2 * place
        work = layer_sums(build(len(LABELS), channels), ARCHITECTURE)
        latency = 0.2 + sum(value for name, value in work.items() if "multiply" in name)
        add_finished(study, channels, latency, 0.9)
    trial = study.ask()
    checks = Screening(study, trial, recipe)
    files = [judged(tmp_path / "checkpoint", quality)]
    if ended:
        with pytest.raises(TrialEndedError, match="dominated by trial 0") as caught:
            checks.before_measuring(recipe, files)
        assert caught.value.check == screening.PREDICTOR
    else:
        checks.before_measuring(recipe, files)
        assert trial.user_attrs["layers"]  # its report will teach the next one
    finished = [(one, study.trials[one.number].user_attrs) for one in screening.trials_of(study, recipe)]
    (predictor,) = predictors_of(finished).values()
    assert predictor.usable is (reports == 9) and max(predictor.errors) < 0.01
