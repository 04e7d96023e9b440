"""Equalisation and bias correction: what they change and what they must not change."""

import pytest
import torch

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.pipeline.compress.bias_correction import correct_biases
from phonefit.pipeline.compress.equalise import equalise, equalise_for
from phonefit.pipeline.compress.fake_quantise import fake_quantised
from phonefit.pipeline.compress.layer_graph import trace
from tests.quantised_case import spoil, trained
from tests.tiny import TinyPictures, tiny_context

SET = CalibrationSet(samples=32)
PER_TENSOR = Quantisation(granularity="per_tensor", calibration=SET)
PER_CHANNEL = Quantisation(calibration=SET)
SAMPLES = TinyPictures().calibration(SET)
PICTURES = torch.from_numpy(TinyPictures().inputs("validation", 0, 48))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return {name: trained(folder / name, tiny_context(folder), name) for name in ("ReLU", "ReLU6")}


def outputs(network, pictures=PICTURES):
    with torch.no_grad():
        return network(pictures)


def rounded(network, architecture, quantisation=PER_TENSOR, pictures=PICTURES):
    return outputs(fake_quantised(trace(network, architecture), quantisation, SAMPLES).module, pictures)


def error(network, architecture, wanted, quantisation=PER_TENSOR):
    return float((rounded(network, architecture, quantisation) - wanted).square().mean())


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("activation", ["ReLU", "ReLU6"])
def test_an_equalised_network_computes_the_same(checkpoints, activation, granularity, tmp_path):
    checkpoint = checkpoints[activation]
    network, before = checkpoint.load(), checkpoint.load()
    (note,) = equalise(network, checkpoint.info.architecture, SAMPLES, granularity)
    assert note.startswith("equalised 6 pairs of layers")
    assert not torch.equal(network[2].pointwise.weight, before[2].pointwise.weight)
    for pictures in (torch.from_numpy(SAMPLES), PICTURES):
        torch.testing.assert_close(outputs(network, pictures), outputs(before, pictures), rtol=1e-4, atol=1e-4)
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


def test_outputs_that_share_a_scale_become_alike_where_weights_have_one_a_channel(checkpoints):
    checkpoint = checkpoints["ReLU"]
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    with torch.no_grad():  # one feature is large and hardly read
        network[5].bias[0] += 200
        network[9].weight[:, 0] *= 0.001
    wanted = outputs(network)
    before = error(network, architecture, wanted, PER_CHANNEL)
    equalise(network, architecture, SAMPLES, "per_channel")
    assert error(network, architecture, wanted, PER_CHANNEL) < before / 10


def test_what_equalising_would_make_worse_stays_as_it_was(checkpoints):
    checkpoint = checkpoints["ReLU"]
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    with torch.no_grad():  # the weights that read this feature would be coarse for all others
        network[5].bias[0] += 200
        network[9].bias -= 200 * network[9].weight[:, 0]
    wanted = outputs(network)
    before = error(network, architecture, wanted, PER_CHANNEL)
    notes = equalise_for(network, architecture, SAMPLES, PER_CHANNEL)
    assert "make the least error in int8" in notes[-1]
    torch.testing.assert_close(outputs(network), wanted, rtol=1e-4, atol=1e-3)
    assert error(network, architecture, wanted, PER_CHANNEL) <= before * 1.01


def test_a_network_that_gives_nothing_stays_finite(checkpoints):
    checkpoint = checkpoints["ReLU"]
    network = checkpoint.load()
    with torch.no_grad():
        network[5].weight.zero_()
        network[5].bias.fill_(-1)
    equalise(network, checkpoint.info.architecture, SAMPLES, "per_channel")
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())


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
