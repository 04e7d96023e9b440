"""Axes inside parts that are searched too: where they exist, and what is refused before a study starts."""

import pytest

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import apply_overrides, check_point, check_recipe
from phonefit.pipeline.recipe_search import Range
from phonefit.pipeline.recipe_space import Conditional, axes_in_order

PRUNE = {"technique": "prune", "ratio": 0.2}
QUANTISE = {"technique": "quantise"}
REGRESSION = {"name": "regression", "unit": "years", "minimum": 0}


def make_recipe(space, **sections):
    return Recipe(
        **{"name": "space", "model": {"family": "resnet18"}, "data": {"source": "demo"}, **sections},
        search={"space": space},
    )


def problems_of(recipe):
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe)
    return str(caught.value).splitlines()[1:]


def test_what_is_inside_a_searched_part_exists_under_some_of_its_choices():
    space = {"compress.0.ratio": {"low": 0.1, "high": 0.5}, "compress": [[], [PRUNE, QUANTISE], [QUANTISE, PRUNE]]}
    recipe = make_recipe(space)
    check_recipe(recipe)
    axes = axes_in_order(recipe)
    assert list(axes) == ["compress", "compress.0.ratio"]  # the whole part first, whatever the order in the recipe
    assert axes["compress.0.ratio"] == Conditional(Range(low=0.1, high=0.5), "compress", ([PRUNE, QUANTISE],))


def test_what_every_choice_has_is_no_conditional_axis():
    axes = axes_in_order(make_recipe({"compress": [[PRUNE], [PRUNE, QUANTISE]], "compress.0.ratio": [0.1, 0.3]}))
    assert axes["compress.0.ratio"] == (0.1, 0.3)


def test_conditions_go_through_several_levels():
    space = {
        "compress": [[], [QUANTISE]],
        "compress.0.qat": [None, {"epochs": 2}],
        "compress.0.qat.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    }
    recipe = make_recipe(space)
    check_recipe(recipe)
    axes = axes_in_order(recipe)
    assert (axes["compress.0.qat"].parent, axes["compress.0.qat"].choices) == ("compress", ([QUANTISE],))
    inner = axes["compress.0.qat.learning_rate"]
    assert (inner.parent, inner.choices) == ("compress.0.qat", ({"epochs": 2},))
    assert not inner.holds({"compress": []})
    assert inner.holds({"compress": [QUANTISE], "compress.0.qat": {"epochs": 2}})


@pytest.mark.parametrize(
    ("space", "values", "place"),
    [
        (
            {"finetune.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
            {"finetune.learning_rate": 0.003},
            lambda recipe: recipe.finetune.learning_rate == 0.003,
        ),
        (
            {"compress": [[PRUNE, QUANTISE], [QUANTISE]], "compress.0.ratio": {"low": 0.1, "high": 0.5}},
            {"compress": [PRUNE, QUANTISE], "compress.0.ratio": 0.4},
            lambda recipe: recipe.compress[0].ratio == 0.4,
        ),
        ({"model.depth": [0.5, 1.0]}, {"model.depth": 0.5}, lambda recipe: recipe.model.depth == 0.5),
        ({"model.head.hidden": [[], [64]]}, {"model.head.hidden": [64]}, lambda r: r.model.head.hidden == (64,)),
        ({"bench.threads": [1, 2]}, {"bench.threads": 2}, lambda recipe: recipe.bench.threads == 2),
        (
            {"convert.runtimes": [["onnx"], ["tflite", "onnx"]]},
            {"convert.runtimes": ["tflite", "onnx"]},
            lambda recipe: recipe.convert.runtimes == ("tflite", "onnx"),
        ),
        (
            {"compress": [[PRUNE, QUANTISE], [QUANTISE, PRUNE]]},
            {"compress": [QUANTISE, PRUNE]},
            lambda recipe: [step.technique for step in recipe.compress] == ["quantise", "prune"],
        ),
        (  # the place is a default of the part that was just set: it is not in what the person wrote
            {"compress": [[], [QUANTISE]], "compress.0.calibration.samples": [16, 32]},
            {"compress.0.calibration.samples": 16, "compress": [QUANTISE]},
            lambda recipe: recipe.compress[0].calibration.samples == 16,
        ),
    ],
)
def test_any_path_can_be_searched(space, values, place):
    recipe = make_recipe(space)
    check_recipe(recipe)
    varied = apply_overrides(recipe, values)
    check_point(varied)
    assert place(varied)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            {"compress": [[], [QUANTISE]], "compress.0.ratio": [0.1]},
            "search.space.compress.0.ratio: exists under none of the 2 choices of compress: no such path; did you ",
        ),
        (
            {"compress": [[], [PRUNE]], "compress.1.ratio": [0.1]},
            "search.space.compress.1.ratio: exists under none of the 2 choices of compress: compress has 1 items",
        ),
        (
            {"compress": [[], [PRUNE]], "compress.0.ratio": [0.1, 1.5]},
            f"search.space.compress.0.ratio: 1.5 under compress = [{PRUNE}] gives compress.0.ratio: 1.5 is not allowed",
        ),
        (
            {"compress": [[{"technique": "prune", "latency_ms": 3.0}]], "compress.0.ratio": [0.1]},
            "gives compress.0: prune takes exactly one of ratio",
        ),
        ({"bench.threads.x": [1], "bench.threads": [1, 2]}, "threads is a single value, it has nothing inside"),
        ({"finetune.lr": [1e-3, 1e-2]}, "search.space.finetune.lr: no such path; did you mean 'learning_rate'?"),
        ({"convert.runtime": ["onnx", "tflite"]}, "convert.runtime: no such path; did you mean 'runtimes'?"),
        ({"bench.device": ["host", "emulator"]}, "cannot be searched: figures of different devices cannot be compared"),
    ],
)
def test_what_can_never_run_is_refused_with_the_reason(space, expected):
    (problem,) = problems_of(make_recipe(space))
    assert expected in problem


@pytest.mark.parametrize(
    ("asked", "path", "choices", "value"),
    [
        (REGRESSION, "task.loss", ["l1", "huber", "expectation"], "expectation"),
        (REGRESSION, "task.bins", {"low": 11, "high": 101, "integer": True}, 21),
        (REGRESSION, "task.maximum", [None, 100], 100),
        ({"name": "multi_label"}, "task.recall", {"low": 0.8, "high": 0.95}, 0.9),
        ({"factory": "my.grades:make", "arguments": {"softness": 0.5}}, "task.arguments.softness", [0.3, 0.7], 0.7),
        ({"factory": "my.grades:make"}, "task.arguments.softness", [0.3, 0.7], 0.7),
    ],
)
def test_the_options_of_a_task_can_be_searched(asked, path, choices, value):
    recipe = make_recipe({path: choices}, task=asked)
    check_recipe(recipe)
    varied = apply_overrides(recipe, {path: value})
    check_point(varied)
    option = path.rpartition(".")[2]
    assert (varied.task.arguments[option] if "factory" in asked else getattr(varied.task, option)) == value


@pytest.mark.parametrize(
    ("asked", "space", "expected"),
    [
        (REGRESSION, {"task.loss": ["l1", "hubert"]}, "gives task.loss: 'hubert' is not allowed; did you mean 'huber'"),
        (REGRESSION, {"task.bins": {"low": 2, "high": 9, "integer": True}}, "task.bins: 2 gives task.bins: 2 is not"),
        (REGRESSION, {"task.maximum": [100, -1]}, "-1 gives task: minimum 0 is not below maximum -1"),
        (REGRESSION, {"task.los": ["l1"]}, "search.space.task.los: no such path; did you mean 'loss'?"),
        (REGRESSION, {"task.recall": [0.9]}, "search.space.task.recall: no such path"),
        ("regression", {"task.loss": ["l1"]}, "a task with options is written {name: …, OPTION: …}"),
        (
            {"name": "multi_label"},
            {"task.recall": [0.9, 1.5]},
            "task.recall: 1.5 gives task.recall: 1.5 is not allowed",
        ),
        (REGRESSION, {"task.unit": ["years", "days"]}, "cannot be searched: it changes nothing"),
        (REGRESSION, {"task.name": ["regression"]}, "cannot be searched: qualities of different tasks"),
        ({"name": "style"}, {"task.style_weight": [1.0, 2.0]}, "cannot be searched: the quality is measured with it"),
        ({"factory": "a:b"}, {"task.factory": ["a:b", "a:c"]}, "cannot be searched: qualities of different tasks"),
        ("classification", {"task": ["classification"]}, "what is inside, such as task.loss, can be searched"),
    ],
)
def test_what_does_not_fit_a_task_is_refused(asked, space, expected):
    (problem,) = problems_of(make_recipe(space, task=asked))
    assert expected in problem


def test_a_scheme_that_runs_on_one_of_the_searched_runtimes_is_no_problem():
    space = {"compress.0.scheme": ["int8_static", "int8_weights"], "convert.runtimes": [["executorch"], ["tflite"]]}
    recipe = make_recipe(space, compress=[QUANTISE])
    check_recipe(recipe)
    with pytest.raises(RecipeError, match="this point of the space cannot run"):
        check_point(apply_overrides(recipe, {"compress.0.scheme": "int8_weights", "convert.runtimes": ["executorch"]}))
    (problem,) = problems_of(make_recipe({**space, "convert.runtimes": [["executorch"]]}, compress=[QUANTISE]))
    assert "'int8_weights' gives compress.0.scheme: executorch cannot run" in problem
