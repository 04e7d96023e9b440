"""Explaining real networks: what is planted in a layer is found there, alone on a device, and on the command line."""

import json
from pathlib import Path

import pytest
import torch

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.cost import multiply_adds as all_multiply_adds
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.explain.gather import analysed, assumed, explain
from phonefit.pipeline.explain.result import Explanation, float_bytes, multiply_adds, nanoseconds
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import load_recipe
from tests.integration.test_main_path import phonefit, write_recipe
from tests.quantised_case import SPOILT, spoilt, trained
from tests.tiny import tiny_context

STEPS = [
    {"technique": "decompose", "ranks": "vbmf", "keep": ["9"]},
    {"technique": "quantise", "granularity": "per_tensor", "calibration": {"samples": 32}, "float_layers": ["0"]},
]


def recipe_of(steps) -> Recipe:
    data = {"source": "image_folder", "path": "not read"}
    return Recipe.model_validate(
        {"name": "tiny", "model": {"factory": "tests.quantised_case:build"}, "data": data, "compress": steps}
    )


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return tiny_context(tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="module")
def sound(context, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("sound"), context)


@pytest.fixture(scope="module")
def planted(sound, tmp_path_factory):
    """Block 2 is hard to round; of layer 4, ten channels do nothing; 3.pointwise has rank 2."""
    network = spoilt(tmp_path_factory.mktemp("spoilt"), sound).load()
    with torch.no_grad():
        network.get_submodule("5").weight[:10] = 0
        network.get_submodule("5").bias[:10] = 0
        weight = network.get_submodule("3.pointwise").weight
        left, values, right = torch.linalg.svd(weight.flatten(1))
        weight.copy_((left[:, :2] * values[:2] @ right[:2])[:, :, None, None])
    return Checkpoint.save(tmp_path_factory.mktemp("planted"), network, sound.info)


@pytest.fixture(scope="module")
def found(planted, context):
    return analysed(planted, recipe_of(STEPS[1:]), context)


def test_what_a_layer_is_sensitive_to_is_found_in_that_layer(found):
    layers = {layer.name: layer for layer in found.layers}
    assert list(layers) == ["0", "2.depthwise", "2.pointwise", "3.depthwise", "3.pointwise", "4", "9"]
    assert found.ordered("int8")[0].name.startswith("2.")
    assert layers[SPOILT].int8.error > 10 * layers["4"].int8.error
    assert layers["4"].prune[0].error < 1e-9 and layers["4"].prune[0].channels == 8
    assert layers["4"].prune[1].error > 1e-6 and layers["4"].prune[1].channels == 16
    assert all(layers[name].prune[0].error > 1e-6 for name in ("0", "2.pointwise"))
    one = layers["3.pointwise"].decompose
    assert (one.method, one.ranks, one.multiply_adds) == ("svd", (8,), 8 * (24 + 24) * 16 * 16)
    assert one.error < 1e-6
    assert layers["2.depthwise"].decompose is None
    assert layers["2.depthwise"].decompose_left == "they are grouped or depthwise"
    assert (layers["9"].prune, layers["9"].prune_left) == ((), "its channels are the network's outputs")


def test_layers_of_one_group_have_one_effect_and_name_each_other(found):
    layers = {layer.name: layer for layer in found.layers}
    assert layers["0"].prune == layers["2.depthwise"].prune
    assert (layers["0"].pruned_with, layers["2.depthwise"].pruned_with) == (("2.depthwise",), ("0",))


def test_more_channels_cost_more_and_loss_goes_with_error(found):
    for layer in found.layers:
        for effect in (*layer.prune, *([layer.decompose] if layer.decompose else [])):
            assert effect.loss is not None and effect.loss >= 0
            assert (effect.loss > 1e-3) <= (effect.error > 1e-6)


def test_shares_sum_to_one_and_the_work_is_the_networks(found, planted):
    for of in (float_bytes, multiply_adds):
        assert sum(found.shares(of).values()) == pytest.approx(1)
    network = planted.load()
    assert sum(layer.multiply_adds for layer in found.layers) == all_multiply_adds(network, planted.info.architecture)


def test_the_steps_of_the_recipe_say_how_and_no_layer_is_kept(planted, found, context):
    how = assumed(recipe_of(STEPS), planted)
    assert (how.int8.granularity, how.int8.float_layers) == ("per_tensor", ())
    assert (how.decompose.ranks, how.decompose.keep) == ("vbmf", ())
    budget = {"technique": "decompose", "ranks": "budget", "target": {"bytes": 0.5}}
    assert assumed(recipe_of([budget]), planted).decompose.ranks == "energy"
    assert found.settings["int8"] == "per tensor, ranges by mse"
    by_noise = analysed(planted, recipe_of(STEPS), context)
    assert by_noise.settings["decompose"] == "method auto, ranks by VBMF"
    reasons = {layer.name: layer.decompose_left for layer in by_noise.layers}
    assert all(reasons[layer.name] for layer in by_noise.layers if layer.decompose is None)


def test_twice_is_the_same_and_the_second_time_from_the_store(found, planted, context):
    assert analysed(planted, recipe_of(STEPS[1:]), context) == found
    stored = list((context.store.root / "store" / "explain").iterdir())
    other = analysed(planted, recipe_of([]), context)
    assert other.settings["int8"] == "per channel, ranges by mse"
    assert len(list((context.store.root / "store" / "explain").iterdir())) == len(stored) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("explained")
    write_recipe(place, convert={"runtimes": ["onnx"]})
    return place


def test_times_of_single_layers_are_kept_in_the_store(folder):
    recipe = load_recipe(folder / "tiny.yaml")
    first = explain(recipe, runs=folder / "runs")
    assert first.timing is not None
    assert (first.timing.source, first.timing.runtime, first.timing.precision) == ("measured", "onnx", "int8")
    assert all(layer.nanoseconds is not None and layer.nanoseconds >= 0 for layer in first.layers)
    assert sum(first.shares(nanoseconds).values()) == pytest.approx(1)
    again = explain(recipe, runs=folder / "runs", progress=SilentProgress())
    assert again == first


def explained(folder: Path, *words: str):
    return phonefit("explain", *words, "--runs", str(folder / "runs"))


def test_a_recipe_and_a_checkpoint_of_it_give_the_same_json(folder):
    recipe = str(folder / "tiny.yaml")
    alone = explained(folder, recipe, "bench.repeats=4", "--no-device", "--json")
    assert alone.returncode == 0, alone.stderr
    found = Explanation.model_validate(json.loads(alone.stdout))
    assert found.timing is None and len(found.layers) == 5
    # other tests may have fine-tuned another one there
    stored = (folder / "runs/store/finetune").iterdir()
    checkpoint = next(one for one in stored if Checkpoint(one).digest == found.checkpoint)
    given = explained(folder, str(checkpoint), recipe, "--no-device", "--json")
    assert (given.returncode, given.stdout) == (0, alone.stdout)


def test_the_table_and_the_page(folder):
    page = folder / "new" / "layers.html"
    done = explained(
        folder, str(folder / "tiny.yaml"), "--no-device", "--sort", "int8", "--top", "2", "--html", str(page)
    )
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 or str(page) in done.stdout.splitlines()[-1]
    assert "2 of 5 layers, by int8" in done.stdout and str(page) in done.stdout.replace("\n", "")
    assert page.read_text().count("Plotly.newPlot(") >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing", "{recipe}", "--no-device"], ["missing", "Checkpoint"]),
        (["{checkpoint}", "--no-device"], ["is a checkpoint", "recipe"]),
        (["{checkpoint}", "{recipe}", "data.input.height=48", "--no-device"], ["made for other data", "48"]),
        (["{recipe}", "--sort", "speed"], ["unknown order 'speed'", "macs"]),
        (["{recipe}", "--sort", "time", "--no-device"], ["--sort time needs"]),
        (["nosuch", "--no-device"], ["nosuch", "demo"]),
        (["{recipe}", "bench.device=emulator:counts:core=none"], ["unknown core", "cortex-a76"]),
        (["{recipe}", "--no-device", "--html", "{recipe}/x.html"], ["tiny.yaml"]),
    ],
)
def test_bad_input_exits_2_and_says_why(folder, words, said):
    if not list((folder / "runs/store").glob("finetune/*")):
        explain(load_recipe(folder / "tiny.yaml"), runs=folder / "runs", device=False)
    checkpoint = next((folder / "runs/store/finetune").iterdir())
    done = explained(folder, *(word.format(recipe=folder / "tiny.yaml", checkpoint=checkpoint) for word in words))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in said:
        assert word in " ".join(done.stderr.split()), word
