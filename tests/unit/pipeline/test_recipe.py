"""What a recipe allows, apart from how it is read."""

import pytest
from pydantic import ValidationError

from phonefit.pipeline.recipe import (
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    PruneConfig,
    Range,
    Recipe,
    SearchConfig,
    SplitConfig,
)


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
