"""Equalisation and bias correction: what they change and what they must not change."""

import pytest
import torch

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.pipeline.compress.bias_correction import correct_biases
from phonefit.pipeline.compress.equalise import equalise
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from tests.quantised_case import spoil, trained
from tests.tiny import TinyPictures, tiny_context

SET = CalibrationSet(samples=32)
PER_TENSOR = Quantisation(granularity="per_tensor", calibration=SET)
SAMPLES = TinyPictures().calibration(SET)
PICTURES = torch.from_numpy(TinyPictures().inputs("validation", 0, 48))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return {name: trained(folder / name, tiny_context(folder), name) for name in ("ReLU", "ReLU6")}


def outputs(network, pictures=PICTURES):
    with torch.no_grad():
        return network(pictures)


def rounded(network, architecture, pictures=PICTURES):
    return outputs(fake_quantised(trace(network, architecture), PER_TENSOR, SAMPLES).module, pictures)


def error(network, architecture, wanted):
    return float((rounded(network, architecture) - wanted).square().mean())


@pytest.mark.parametrize("activation", ["ReLU", "ReLU6"])
def test_an_equalised_network_computes_the_same(checkpoints, activation, tmp_path):
    checkpoint = checkpoints[activation]
    network, before = checkpoint.load(), checkpoint.load()
    (note,) = equalise(network, checkpoint.info.architecture, SAMPLES)
    assert note.startswith("equalised 6 pairs of layers")
    assert not torch.equal(network[2].pointwise.weight, before[2].pointwise.weight)
    for pictures in (torch.from_numpy(SAMPLES), PICTURES):
        torch.testing.assert_close(outputs(network, pictures), outputs(before, pictures), rtol=1e-5, atol=1e-5)
    again = Checkpoint.save(tmp_path / "saved", network, checkpoint.info)
    assert not again.info.modules  # the same modules
    torch.testing.assert_close(outputs(again.load()), outputs(network))


def test_channels_that_relu6_clips_stay_as_they_are(checkpoints):
    checkpoint = checkpoints["ReLU6"]
    network = checkpoint.load()
    with torch.no_grad():
        network[2].norm.bias[:5] = 10  # always clipped
    before = outputs(network)
    scale = network[2].norm.weight.clone()
    (note,) = equalise(network, checkpoint.info.architecture, SAMPLES)
    assert "channels stay as they are" in note
    torch.testing.assert_close(outputs(network), before, rtol=1e-5, atol=1e-5)
    # what a clipped channel gives is not scaled
    assert torch.equal(network[2].norm.weight[:5], scale[:5])


def test_ranges_become_alike_and_a_scale_for_the_whole_weight_does_less_harm(checkpoints):
    checkpoint = checkpoints["ReLU"]
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    spoil(network)
    wanted = outputs(network)
    torch.testing.assert_close(wanted, outputs(checkpoint.load()), rtol=1e-4, atol=1e-4)
    before = error(network, architecture, wanted)
    equalise(network, architecture, SAMPLES)
    assert error(network, architecture, wanted) < before / 10
    block = network[2]
    scale = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()
    first = (block.depthwise.weight * scale.reshape(-1, 1, 1, 1)).abs().amax((1, 2, 3))
    second = block.pointwise.weight.abs().amax((0, 2, 3))
    torch.testing.assert_close(first, second, rtol=0.02, atol=1e-6)


def test_bias_correction_takes_the_mean_error_out(checkpoints):
    checkpoint = checkpoints["ReLU"]
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    spoil(network, factor=30)
    wanted = outputs(network)
    before = rounded(network, architecture) - wanted
    (note,) = correct_biases(network, architecture, SAMPLES, PER_TENSOR)
    after = rounded(network, architecture) - wanted
    assert note.startswith("corrected the biases of 7 layers")
    assert after.mean(0).abs().mean() < 0.3 * before.mean(0).abs().mean()


def test_a_layer_without_any_bias_gets_one_that_a_checkpoint_records(checkpoints, tmp_path):
    checkpoint = checkpoints["ReLU"]
    network = checkpoint.load()
    network[9].bias = None
    correct_biases(network, checkpoint.info.architecture, SAMPLES, PER_TENSOR)
    assert network[9].bias is not None and network[9].bias.abs().max() > 0
    saved = Checkpoint.save(tmp_path / "saved", network, checkpoint.info)
    torch.testing.assert_close(outputs(saved.load()), outputs(network))
