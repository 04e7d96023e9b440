"""Steps that ask the run's device, with real conversions, on this machine and on the emulated core."""

import pytest

from phonefit.device_bench.host import HostDevice
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.ask import ask_run_device
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import check_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.run import run_trial
from tests.tiny import SIZE, tiny_checkpoint, tiny_context, write_folder

QUANTISE = {"technique": "quantise", "calibration": {"samples": 16}}


def recipe_of(tmp_path, prune, quantise=True, runtime="onnx", device="host", epochs=0):
    data = {"source": "image_folder", "path": str(write_folder(tmp_path / "pictures")), "input": {"height": SIZE}}
    step = {"technique": "prune", "round_to": 4, "recover": {"epochs": epochs}, **prune}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"factory": "tests.tiny:build"},
            "data": {**data, "split": {"validation": 0.3, "test": 0.3}},
            "finetune": {"epochs": 1, "freeze_epochs": 0},
            "compress": [step, *([QUANTISE] if quantise else [])],
            "convert": {
                "runtimes": [runtime],
                "original": False,
                "parity": {"samples": 4, "cosine": -1, "snr_db": -99, "agreement": 0},
            },
            "bench": {"device": device, "repeats": 3, "warmups": 1, "attempts": 1},
        }
    )


def test_candidates_are_quantised_as_the_recipe_ends_and_measured_once(tmp_path):
    context, checkpoint = tiny_context(tmp_path), tiny_checkpoint(tmp_path / "c")
    ask = ask_run_device(recipe_of(tmp_path, {"latency_ms": 1}), HostDevice(), context)
    first = ask(checkpoint)
    assert first.runtime == "onnx"
    assert first == ask(checkpoint)
    assert len(list((tmp_path / "runs/store/measure").iterdir())) == 1
    unquantised = ask_run_device(recipe_of(tmp_path, {"latency_ms": 1}, quantise=False), HostDevice(), context)
    assert unquantised(checkpoint).model_bytes != first.model_bytes
    assert unquantised.identity != ask.identity


def test_a_run_asks_its_device_and_a_target_that_is_met_leaves_the_network_alone(tmp_path):
    trial = run_trial(recipe_of(tmp_path, {"latency_ms": 1e4}), tmp_path / "runs")
    assert isinstance(trial, TrialResult)
    assert any("prune: the target is met already" in note and "at most 1e+04 ms" in note for note in trial.notes)
    assert any("prune: asked " in note for note in trial.notes)
    pruned = Checkpoint(next((tmp_path / "runs/store/prune").iterdir()))
    assert pruned.info.modules == {}


def test_a_target_out_of_reach_says_what_is_in_reach(tmp_path):
    with pytest.raises(RecipeError, match=r"target of 1e-06 ms cannot be met: without all that may go, .* ms remain"):
        run_trial(recipe_of(tmp_path, {"latency_ms": 1e-6}), tmp_path / "runs")


def test_instructions_are_refused_on_a_device_that_does_not_count(tmp_path):
    with pytest.raises(RecipeError, match=r"compress\.0\.instructions: bench\.device host does not count"):
        check_recipe(recipe_of(tmp_path, {"instructions": 10**6}))


@pytest.mark.emulator
def test_instructions_are_met_on_a_device_that_counts(tmp_path):
    recipe = recipe_of(tmp_path, {"instructions": 10**9}, runtime="tflite", device="emulator:counts")
    check_recipe(recipe)
    note = next(note for note in run_trial(recipe, tmp_path / "runs").notes if "met already" in note)
    before = int(note.split("already: ")[1].split()[0].replace(",", ""))
    target = int(0.85 * before)
    tighter = recipe_of(tmp_path, {"instructions": target}, runtime="tflite", device="emulator:counts")
    trial = run_trial(tighter, tmp_path / "runs")
    assert max(trial.files[0].report.figures["instructions"].samples) <= target * 1.001
    asked = [note for note in trial.notes if note.startswith("prune: asked")]
    assert 1 <= len(asked) <= 5
