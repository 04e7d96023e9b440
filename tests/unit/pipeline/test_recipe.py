"""What a recipe allows, apart from how it is read."""

import pytest
from pydantic import ValidationError

from phonefit.pipeline.recipe import DataConfig, ModelConfig, Recipe, SplitConfig, resolved_steps
from phonefit.pipeline.recipe_search import Range, SearchConfig
from phonefit.pipeline.recipe_steps import FinetuneConfig, PruneConfig


def recipe(**changes):
    return Recipe(name="r", model={"family": "resnet18"}, data={"source": "demo"}, **changes)


def test_a_recipe_survives_json():
    steps = [{"technique": "prune", "ratio": 0.3}, {"technique": "quantise"}]
    space = {"compress.0.ratio": [0.1, 0.2], "finetune.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    first = recipe(compress=steps, search={"space": space}, budget={"ram": "6GB"})
    again = Recipe.model_validate(first.as_json())
    assert again == first
    assert again.budget.ram == 6_000_000_000
    assert isinstance(again.compress[0], PruneConfig)
    assert again.search.space["finetune.learning_rate"] == Range(low=1e-4, high=1e-2, log=True)
    assert again.search.space["compress.0.ratio"] == (0.1, 0.2)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ModelConfig, {}, "either family"),
        (ModelConfig, {"family": "vgg11", "factory": "a.b:c"}, "either family"),
        (ModelConfig, {"factory": "a.b"}, "package.module:function"),
        (ModelConfig, {"factory": "a.b:c", "weights": "pretrained"}, "weights from a file"),
        (ModelConfig, {"factory": "a.b:c", "head": {"hidden": [8]}}, "a factory builds its own head"),
        (ModelConfig, {"family": "vgg11", "arguments": {"layers": 2}}, r"arguments \(layers\) are handed to a factory"),
        (DataConfig, {"source": "image_folder"}, "needs path"),
        (DataConfig, {"source": "demo", "path": "pictures"}, "takes no path"),
        (DataConfig, {"source": "idx", "path": "images"}, "labels_path"),
        (SplitConfig, {"validation": 0.5, "test": 0.5}, "at most 0.9"),
        (FinetuneConfig, {"learning_rate": float("inf")}, "finite"),
        (Range, {"low": 2, "high": 1}, "above high"),
        (Range, {"low": 0, "high": 1, "log": True}, "low > 0"),
        (Range, {"low": 1, "high": 2.5, "integer": True}, "whole numbers"),
        (SearchConfig, {"objectives": []}, "at least one"),
        (SearchConfig, {"objectives": ["bytes", "bytes"]}, "once"),
        (SearchConfig, {"space": {"bench.threads": []}}, "at least one choice"),
        (SearchConfig, {"space": {"bench.threads": [1, 1]}}, "different"),
        (SearchConfig, {"space": {"bench.threads": 3}}, "list of choices"),
    ],
)
def test_contradictions_are_refused(config, values, message):
    with pytest.raises(ValidationError, match=message):
        config(**values)


def test_a_checkpoint_is_quantised_once_only():
    with pytest.raises(ValidationError, match=r"quantise at steps \[0, 2\]"):
        recipe(compress=[{"technique": "quantise"}, {"technique": "distil"}, {"technique": "quantise"}])


@pytest.mark.parametrize("name", ["store", "Store"])
def test_the_name_of_the_store_is_not_a_name_for_a_recipe(name):
    with pytest.raises(ValidationError, match="use another name"):
        Recipe(name=name, model={"family": "resnet18"}, data={"source": "demo"})


def test_later_trainings_treat_the_pictures_as_fine_tuning_does_unless_told_otherwise():
    finetune = {"flip": "none", "shift": 0, "class_weights": "balanced", "batch_size": 8, "learning_rate": 0.1}
    steps = [
        {"technique": "prune", "ratio": 0.3},
        {"technique": "decompose", "recover": {"flip": "both", "batch_size": 4}},
        {"technique": "distil", "shift": 0.2},
        {"technique": "quantise"},
    ]
    first = recipe(finetune=finetune, compress=steps)
    prune, decompose, distil, quantise = resolved_steps(Recipe.model_validate(first.as_json()))
    for training in (prune.recover, decompose.recover, distil):
        open_values = {name for name, value in training.as_json().items() if value is None}
        assert open_values <= {"features", "student"}  # nothing of these is taken from fine-tuning
        assert (training.class_weights, training.learning_rate) == ("balanced", 3e-4)
    assert (prune.recover.settings().flip, prune.recover.shift, prune.recover.batch_size) == ("none", 0, 8)
    assert (decompose.recover.flip, decompose.recover.batch_size) == ("both", 4)
    assert (distil.flip, distil.shift) == ("none", 0.2)
    assert quantise == first.compress[3]
