"""Reading recipes: shipped ones, YAML, overrides, and errors that name every problem at once."""

import subprocess
import sys

import pytest

from phonefit.pipeline.errors import RecipeError, UnknownNameError
from phonefit.pipeline.recipe import PATHLESS
from phonefit.pipeline.recipe_file import (
    apply_overrides,
    check_recipe,
    load_recipe,
    recipe_descriptions,
    recipe_text,
    shipped_recipes,
)

MINIMAL = "name: mine\nmodel: {family: resnet18}\ndata: {source: demo}\n"


@pytest.fixture
def write(tmp_path):
    def write_recipe(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def problems_of(*arguments):
    """The message of the RecipeError, line by line, without the first."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(*arguments)
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid(name, tmp_path):
    text = recipe_text(name)
    place = tmp_path / "table.csv" if "source: csv" in text else tmp_path
    (tmp_path / "table.csv").touch()
    brought = any(f"source: {source}" in text for source in PATHLESS)
    recipe = load_recipe(name, [] if brought else [f"data.path={place}"])
    assert recipe.name == name
    assert recipe.description == recipe_descriptions()[name] != ""


def test_the_shipped_recipes_are_those_that_are_documented():
    assert set(shipped_recipes()) == {
        "ages",
        "cell-labels",
        "defect-probability",
        "demo",
        "detect",
        "faces",
        "few-shot",
        "image-folder",
        "moderation",
        "moderation-vgg",
        "moderation-vgg-pretrained",
        "own-model",
        "prune-distil-quantise",
        "style",
    }


def test_a_template_says_what_it_needs():
    assert "data.path=my_pictures" in problems_of("image-folder")[0]


def test_a_copy_of_a_shipped_recipe_is_the_same_recipe(write):
    assert load_recipe(write(recipe_text("demo"))) == load_recipe("demo")


def test_overrides_reach_everywhere(write):
    path = write(MINIMAL + "compress: [{technique: prune, ratio: 0.2}, {technique: quantise}]\n")
    overrides = [
        "compress.0.ratio=0.5",
        "compress.0.recover.epochs=0",
        "finetune.learning_rate=1e-3",
        "convert.runtimes=[tflite]",
        "search.space.compress.0.ratio={low: 0.1, high: 0.5}",
        "model={factory: my_module:build}",
        "model.arguments.blocks=[1, 2]",
        "description=a = b",
    ]
    recipe = load_recipe(path, overrides)
    assert recipe.compress[0].ratio == 0.5
    assert recipe.compress[0].recover.epochs == 0
    assert recipe.finetune.learning_rate == 0.001
    assert recipe.convert.runtimes == ("tflite",)
    assert recipe.search.space["compress.0.ratio"].high == 0.5
    assert recipe.model.arguments == {"blocks": [1, 2]}
    assert recipe.description == "a = b"
    assert load_recipe(path, ["compress=[]"]).compress == ()


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("2", 2.0)])
def test_numbers_are_read_as_in_yaml_1_2(write, text, value):
    assert load_recipe(write(f"{MINIMAL}finetune: {{weight_decay: {text}}}")).finetune.weight_decay == value


def test_words_that_yaml_1_1_takes_for_booleans_are_words(write):
    assert load_recipe(write(MINIMAL.replace("mine", "no"))).name == "no"


def test_a_section_with_only_comments_counts_as_left_out(write):
    assert load_recipe(write(MINIMAL + "finetune:\n  # epochs: 3\n")) == load_recipe(write(MINIMAL))


def test_every_problem_is_reported_at_once_with_what_is_allowed(write):
    path = write(
        "name: mine\nmodel: {family: efficientnet_lite9, wdith: 2}\ndata: {source: imagefolder}\ntask: clasification\n"
        "finetune: {epochs: -1}\ncompress: [{technique: quantize}, {technique: prune}]\n"
        "search: {sampler: tpee, space: {finetune.epoch: [1]}}\n"
    )
    overrides = [
        "nonsense",
        "compress.7.ratio=0.1",
        "bench.warmups=[1",
        "convert.runtimes=[onx]",
        "budget.ram=6 apples",
    ]
    found = problems_of(path, overrides)
    for expected in (
        "'nonsense' is not of the form dotted.path=value",
        "compress.7.ratio: compress has 2 items, numbered from 0",
        "bench.warmups: '[1' is not YAML: line 1",
        "model.wdith: unknown key; did you mean 'width'?",
        "data.source: 'imagefolder' is not allowed; did you mean 'image_folder'? allowed: image_folder, csv, idx, demo",
        "finetune.epochs: -1 is not allowed: it should be greater than or equal to 0",
        "compress.0.technique: 'quantize' is not allowed; did you mean 'quantise'?",
        "compress.1: prune takes exactly one of ratio, multiply_adds, bytes",
        "convert.runtimes.0: 'onx' is not allowed; did you mean 'onnx'?",
        "budget.ram: '6 apples' is not allowed",
        "search.sampler: 'tpee' is not allowed; did you mean 'tpe'? allowed: grid, random, tpe",
        "task: unknown task 'clasification'; did you mean 'classification'?",
        "model.family: unknown family 'efficientnet_lite9'; did you mean",
    ):
        assert any(line.strip().startswith(expected) for line in found), expected
    # finetune has a problem of its own, so the path into it is not judged; nothing else is reported
    assert len(found) == 13


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nmodel: {family: vgg11\ndata: x\n", r"line 3, column 5"),
        ("name: a\nname: b\n", r"line 2, column 1: the key 'name' is given twice"),
        ("- name: a\n", "not a recipe"),
        ("", "not a recipe"),
        ("name: !!python/object:os.system a\n", "line 1"),
    ],
)
def test_what_is_not_a_recipe_says_where(write, text, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(text))


def test_bytes_that_are_not_text_are_a_clear_error(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read as a recipe"):
        load_recipe(path)


def test_an_unknown_recipe_lists_the_shipped_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="faces, few-shot, image-folder"):
        load_recipe("dmo")
    with pytest.raises(RecipeError, match=r"no such file.*demo"):
        load_recipe(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data={source: image_folder, path: /no/such/folder}", "data.path: '/no/such/folder' does not exist"),
        ("data={source: csv, path: .}", "data.path: '.': source csv needs a file"),
        ("model.weights=mine.pt", "model.weights: no weights 'mine.pt'"),
        ("model.weights=pretrained", "model.weights: no packaged weights for resnet18; use random or a file. Families"),
        ("model.head.hidden=[0]", "model.head.hidden.0: 0 is not allowed: it should be greater than or equal to 1"),
        ("data.input.height=16", "data.input.height: 16 is too small: resnet18 takes at least 32 pixels"),
        ("search.after_run=true", "search.after_run: there is nothing to search: search.space is empty"),
        (
            "compress=[{technique: distil, student: {family: resnet19}}]",
            "compress.0.student.family: unknown family 'resnet19'; did you mean 'resnet18'?",
        ),
        (
            "compress=[{technique: distil, student: {family: resnet18, weights: pretrained}}]",
            "compress.0.student.weights: no packaged weights for resnet18; use random. Families with weights:",
        ),
        (
            "compress=[{technique: prune, ratio: 0.1}, {technique: distil, student: {family: resnet18}}]",
            "compress.1.student: a new network would undo prune; put this step before them",
        ),
        (
            "compress=[{technique: decompose, ranks: budget}]",
            "compress.0: ranks: budget needs a target, for example target: {multiply_adds: 0.5}",
        ),
        ("task={name: regresion}", "task: {'name': 'regresion'} is not allowed: should be a task's name, {name: reg"),
        (
            "task={name: regression, los: l1}",
            "task.los: unknown key; did you mean 'loss'? known: name, unit, loss, minimum, maximum, bins",
        ),
        ("task={factory: mine}", "task.factory: factory 'mine' is not of the form package.module:function"),
        ("task={name: regression, minimum: 3, maximum: 1}", "task: minimum 3 is not below maximum 1"),
        ("bench.device=hots", "bench.device: unknown device 'hots'; did you mean 'host'?"),
        (
            "search.objectives=[quality, instructions]",
            "search.objectives: bench.device host does not count instructions; devices that do: emulator:counts",
        ),
        ("budget.energy_uj=900", "budget.energy_uj: needs bench.energy=true, on a phone that tells its power"),
        ("search.objectives=[quality, energy_uj]", "search.objectives: energy_uj needs bench.energy=true"),
    ],
)
def test_what_the_recipe_refers_to_is_checked_before_any_work(write, override, expected):
    (problem,) = problems_of(write(MINIMAL), [override])
    assert problem.strip().startswith(expected)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("bench.thread: [1]", "no such path; did you mean 'threads'?"),
        ("compress.0.ratio: [0.1]", "compress has 0 items"),
        ("bench.threads: [1, 0]", "0 gives bench.threads: 0 is not allowed"),
        (
            "bench.threads: {low: 1, high: 4}",
            "2.145898 gives bench.threads: 2.145898 is not allowed: it should be a valid integer",
        ),
        ("finetune.learning_rate: {low: 0, high: 1}", "0.0 gives finetune.learning_rate"),
        ("data.input.height: [16, 64]", "16 gives data.input.height: 16 is too small"),
        ("model.family: [resnet18, resnet19]", "'resnet19' gives model.family: unknown family"),
        ("data.limit: [100, 200]", "cannot be searched: trials on different pictures"),
        ("search.trials: [1, 2]", "cannot be searched"),
        ("compress: [[], [{technique: prune}]]", "gives compress.0: prune takes exactly one of ratio"),
    ],
)
def test_the_search_space_is_checked_before_any_work(write, axis, expected):
    (problem,) = problems_of(write(f"{MINIMAL}search: {{space: {{{axis}}}}}"))
    path = axis.partition(":")[0]
    assert problem.strip().startswith(f"search.space.{path}: ")
    assert expected in problem


@pytest.mark.parametrize(
    "step, problem",
    [
        (
            "scheme: int8_weights",
            "compress.0.scheme: executorch cannot run 'int8_weights', it can run int8_static, int8_dynamic, "
            "int4_weights, fp16; runtimes that can: tflite, onnx",
        ),
        (
            "scheme: int4_weights",
            "compress.0.granularity: onnx cannot run int4_weights 'per_channel', it can run per_block; "
            "runtimes that can: executorch, tflite",
        ),
        (
            "granularity: per_block, scheme: int4_weights",
            "compress.0.granularity: executorch cannot run int4_weights 'per_block', it can run per_channel; "
            "runtimes that can: tflite, onnx",
        ),
        (
            "scheme: int8_dynamic, granularity: per_tensor",
            "compress.0.granularity: executorch cannot run int8_dynamic 'per_tensor', it can run per_channel; runtimes "
            "that can: tflite, onnx",
        ),
        (
            "scheme: fp16, float_layers: [head]",
            "compress.0.float_layers: executorch computes the whole of a float16 file in float16; leave float_layers "
            "empty, or leave it out",
        ),
    ],
)
def test_a_quantisation_that_a_runtime_cannot_run_is_refused(write, step, problem):
    assert [text.strip() for text in problems_of(write(f"{MINIMAL}compress: [{{technique: quantise, {step}}}]"))] == [
        problem
    ]


def test_int4_weights_for_what_runs_them_is_accepted(write):
    steps = "compress: [{technique: quantise, scheme: int4_weights}]"
    assert (
        load_recipe(write(f"{MINIMAL}convert: {{runtimes: [executorch, tflite]}}\n{steps}")).compress[0].scheme
        == "int4_weights"
    )


def test_apply_overrides_sets_the_outer_part_first():
    recipe = load_recipe("demo")
    values = {"compress.0.ratio": 0.4, "compress": [{"technique": "prune", "ratio": 0.1}], "bench.threads": 2}
    changed = apply_overrides(recipe, values)
    assert changed.compress[0].ratio == 0.4
    assert changed.bench.threads == 2
    assert recipe.bench.threads == 1


def test_apply_overrides_names_every_wrong_path_and_value():
    with pytest.raises(RecipeError) as caught:
        apply_overrides(load_recipe("demo"), {"bench.thread": 1, "finetune.epochs": "many", "seed.x": 1})
    message = str(caught.value)
    assert "bench.thread: no such path; did you mean 'threads'?" in message
    assert "finetune.epochs: 'many' is not allowed" in message
    assert "seed.x: seed is a single value" in message


def test_a_recipe_made_in_python_is_checked_the_same_way():
    recipe = apply_overrides(load_recipe("demo"), {"model.family": "resnet99"})
    with pytest.raises(RecipeError, match="unknown family 'resnet99'"):
        check_recipe(recipe)


def test_reading_a_recipe_imports_neither_torch_nor_optuna():
    code = (
        "import sys; from phonefit.pipeline.recipe_file import load_recipe; load_recipe('demo'); "
        "print([name for name in ('torch', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_class_weights_are_refused_where_there_are_no_classes():
    (found,) = problems_of("defect-probability", ["finetune.class_weights=balanced"])
    assert found.strip() == "finetune.class_weights: numbers have no classes to balance; leave it out"
    (found,) = problems_of("faces", ["finetune.class_weights=balanced"])
    assert "identities are not balanced by weights" in found


def test_a_split_by_class_is_for_tasks_whose_classes_need_not_be_learned():
    (found,) = problems_of("demo", ["data.split.by=class"])
    assert found.strip().startswith("data.split.by: on each side the task needs the classes that it learns")
    assert load_recipe("faces", ["data.split.by=class"]).data.split.by == "class"


def test_a_source_that_does_not_give_what_the_task_learns_is_refused(tmp_path):
    (found,) = problems_of("image-folder", [f"data.path={tmp_path}", "task=regression", "finetune.class_weights=none"])
    assert found.strip() == (
        "data.source: the task needs a number for each picture, which source image_folder does not give; sources that "
        "do: csv, demo"
    )
