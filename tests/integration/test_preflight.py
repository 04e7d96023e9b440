"""What a recipe gets wrong about its device or its network is said before anything is trained."""

from dataclasses import replace

import pytest

from phonefit.device_bench import host_facts
from phonefit.device_bench.host import HostDevice
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.preflight import preflight
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.run import run_trial
from tests.tiny import SIZE, TinyPictures, tiny_context, write_folder


def make_recipe(**changes):
    content = {"name": "tiny", "model": {"factory": "tests.tiny:build"}, "data": {"source": "demo"}}
    return Recipe.model_validate(content | changes)


def test_wrong_threads_and_layers_are_all_named_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(host_facts, "usable_cores", lambda: 2)
    steps = [
        {"technique": "prune", "ratio": 0.2, "keep": ["3", "stem"]},
        {"technique": "distil"},
        {"technique": "quantise", "float_layers": ["head"]},
    ]
    data = {"source": "image_folder", "path": str(write_folder(tmp_path / "pictures")), "input": {"height": SIZE}}
    recipe = make_recipe(compress=steps, bench={"threads": 3}, data=data)
    with pytest.raises(RecipeError) as caught:
        run_trial(recipe, tmp_path / "runs")
    message = str(caught.value)
    assert "bench.threads: 3 is too many: host" in message
    assert "compress.0.keep: the model has no layer stem; it has 0, 3.depthwise" in message
    assert "compress.2.float_layers: the model has no layer head" in message
    assert not list((tmp_path / "runs/store").glob("finetune/*"))


def test_steps_after_a_new_student_name_its_layers(tmp_path):
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=3))
    student = {"technique": "distil", "student": {"family": "resnet18", "width": 0.125}}
    keep = {"technique": "prune", "ratio": 0.2, "keep": ["features.stem.conv"]}
    preflight(make_recipe(compress=[student, keep]), context, HostDevice())
    with pytest.raises(RecipeError, match=r"keep: the model has no layer features\.stem\.conv"):
        preflight(make_recipe(compress=[{"technique": "distil"}, keep]), context, HostDevice())


def test_factors_of_an_earlier_decomposition_may_be_named(tmp_path):
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=3))
    decompose, quantise = {"technique": "decompose"}, {"technique": "quantise", "float_layers": ["4.2", "9"]}
    preflight(make_recipe(compress=[decompose, quantise]), context, HostDevice())
    for steps in ([quantise], [quantise, decompose], [decompose, {**quantise, "float_layers": ["4.2.0"]}]):
        with pytest.raises(RecipeError, match=r"float_layers: the model has no layer 4\.2"):
            preflight(make_recipe(compress=steps), context, HostDevice())


def test_a_device_that_torch_does_not_have_is_refused(tmp_path):
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=3))
    with pytest.raises(RecipeError, match=r"train_on: torch .* finds no cuda device here.* or say cpu"):
        preflight(make_recipe(train_on="cuda"), context, HostDevice())
