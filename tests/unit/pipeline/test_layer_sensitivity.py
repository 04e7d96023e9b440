"""Sensitivity of single layers, and the layers that stay in float for it."""

import pytest
import torch

from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.compress.layer_sensitivity import layer_sensitivity
from phonefit.pipeline.compress.mixed_precision import Unit, choose_float_layers, units_of
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import MixedConfig
from phonefit.pipeline.train import validation_metrics
from tests.quantised_case import SPOILT, spoilt, trained
from tests.tiny import TinyPictures, tiny_context

SET = CalibrationSet(samples=32)
PER_TENSOR = Quantisation(granularity="per_tensor", calibration=SET)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return tiny_context(tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="module")
def sound(context, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("sound"), context)


@pytest.fixture(scope="module")
def bad(sound, tmp_path_factory):
    return spoilt(tmp_path_factory.mktemp("bad"), sound)


def sensitivity(checkpoint, quantisation=PER_TENSOR):
    return layer_sensitivity(checkpoint.load(), checkpoint.info.architecture, TinyPictures(), quantisation)


def choose(checkpoint, context, **config):
    network = checkpoint.load()
    return choose_float_layers(network, checkpoint, context, PER_TENSOR, MixedConfig(**config))


def test_a_planted_bad_layer_is_found(sound, bad):
    errors, before = sensitivity(bad), sensitivity(sound)
    assert list(errors) == ["0", "2.depthwise", "2.pointwise", "3.depthwise", "3.pointwise", "4", "9"]
    assert max(errors, key=errors.get).startswith("2.")
    assert errors[SPOILT] > 100 * before[SPOILT]
    others = [name for name in errors if not name.startswith("2.")]
    assert all(errors[name] < errors[SPOILT] / 10 for name in others)


def test_a_scale_for_each_channel_does_not_see_it_and_twice_gives_the_same(bad):
    per_channel = PER_TENSOR.model_copy(update={"granularity": "per_channel"})
    errors = sensitivity(bad, per_channel)
    assert errors[SPOILT] < sensitivity(bad)[SPOILT]
    assert errors == sensitivity(bad, per_channel)


def test_one_layer_alone_is_what_the_whole_simulation_gives_with_the_rest_in_float(bad):
    """The walk from the middle of the graph against the graph as a whole."""
    network, architecture = bad.load(), bad.info.architecture
    samples = TinyPictures().calibration(SET)
    others = (*(name for name in sensitivity(bad) if name != "3.pointwise"), "7")  # 7 is the pool
    alone = fake_quantised(
        trace(network, architecture), PER_TENSOR.model_copy(update={"float_layers": others}), samples
    ).module
    pictures = torch.from_numpy(samples)
    with torch.no_grad():
        wanted, got = network(pictures), alone(pictures)
    error = (got - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()
    assert sensitivity(bad)["3.pointwise"] == pytest.approx(float(error), rel=1e-3)


def test_float_layers_are_left_out(sound):
    assert "9" not in sensitivity(sound, PER_TENSOR.model_copy(update={"float_layers": ("9",)}))


def test_units_are_blocks_where_there_are_some_and_else_layers(sound):
    errors = {"0": 1.0, "2.depthwise": 2.0, "2.pointwise": 3.0, "3.depthwise": 0.5, "4": 0.25, "9": 0.125}
    units = units_of(sound.load(), errors)
    assert [unit.name for unit in units] == ["0", "2", "3.depthwise", "4", "9"]
    assert units[1] == Unit("2", 5.0, 16 * 9 + 16 * 24)


def test_the_fewest_layers_that_hold_the_quality_stay_in_float(bad, context):
    chosen, notes = choose(bad, context, quality_drop=0.05)
    assert chosen == ("2",)
    assert "most sensitive to int8: 2." in notes[0]
    assert "2 stays in float: accuracy" in notes[1]
    asked = PER_TENSOR.model_copy(update={"float_layers": chosen})
    samples = TinyPictures().calibration(SET)
    network = bad.load()
    mixed = fake_quantised(trace(network, bad.info.architecture), asked, samples).module
    whole = fake_quantised(trace(network, bad.info.architecture), PER_TENSOR, samples).module
    least = validation_metrics(network, context)["accuracy"] - 0.05
    assert validation_metrics(mixed, context)["accuracy"] >= least > validation_metrics(whole, context)["accuracy"]


def test_no_layer_stays_where_int8_costs_nothing(sound, context):
    chosen, notes = choose(sound, context, quality_drop=0.05)
    assert chosen == ()
    assert "no layer stays in float" in notes[1]


def test_within_bytes_the_most_error_for_each_byte_stays_in_float(bad, context):
    weights = sum(bad.load().get_parameter(f"{name}.weight").numel() for name in sensitivity(bad))
    block = 16 * 9 + 16 * 24
    chosen, notes = choose(bad, context, bytes=weights + 3 * block)
    assert "2" in chosen
    assert f"of {weights + 3 * block:,} bytes, {weights:,} all in int8" in notes[1]
    everything, _ = choose(bad, context, bytes=4 * weights)
    assert set(everything) == {"0", "2", "3", "4", "9"}
    with pytest.raises(RecipeError, match=f"mixed: bytes {weights - 1:,} is too small"):
        choose(bad, context, bytes=weights - 1)
