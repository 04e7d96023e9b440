"""The family that gives a picture for a picture."""

import pytest
import torch
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.errors import ModelError
from phonefit.models.registry import build_network, check_network, model_spec
from phonefit.models.spec import Architecture

SPEC = model_spec("style_net")


def architecture(height=32, width_pixels=48, **changes):
    usual = {"family": SPEC.name, "width": 0.25, "depth": 0.4, "outputs": 3 * height * width_pixels}
    return Architecture.model_validate(usual | {"height": height, "width_pixels": width_pixels} | changes)


def build(wanted):
    torch.manual_seed(0)
    return build_network(wanted).eval()


def parameters(wanted):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(wanted).parameters())


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (20, 36)])
def test_it_gives_a_picture_of_the_size_of_its_input_and_starts_with_nearly_that(size):
    wanted = architecture(*size)
    network, pictures = build(wanted), torch.rand(2, 3, *size)
    check_network(network, wanted)
    drawn = network(pictures)
    assert drawn.shape == (2, 3 * size[0] * size[1])
    assert torch.allclose(drawn, pictures.flatten(1), atol=0.05)
    assert not torch.equal(drawn, pictures.flatten(1))


def test_depth_and_width_change_its_size_and_the_published_one_is_right():
    for name in ("depth", "width"):
        counts = [parameters(architecture(**{name: value})) for value in (0.25, 0.5, 1.0, 2.0)]
        assert counts == sorted(set(counts))
    full = architecture(256, 256, width=1.0, depth=1.0)
    assert round(parameters(full) / 1e6, 2) == SPEC.parameters


def test_its_channels_are_multiples_of_eight_but_for_the_picture():
    layers = [layer for layer in build(architecture(width=0.3)).modules() if isinstance(layer, nn.Conv2d)]
    assert layers[-1].out_channels == 3
    assert all(layer.out_channels % 8 == 0 for layer in layers[:-1])


def test_a_training_step_reaches_every_parameter():
    network = build(architecture()).train()
    network(torch.rand(4, 3, 32, 48)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_it_survives_a_checkpoint(tmp_path):
    wanted, pictures = architecture(), torch.rand(1, 3, 32, 48)
    network = build(wanted)
    info = CheckpointInfo(architecture=wanted, task="style", labels=("picture",), preprocess=SPEC.preprocess)
    assert torch.equal(Checkpoint.save(tmp_path, network, info).load()(pictures), network(pictures))


def test_sizes_that_cannot_be_halved_twice_and_other_tasks_are_refused():
    with pytest.raises(ModelError, match=r"multiples of 4, got 32x50"):
        build_network(architecture(32, 50))
    with pytest.raises(ModelError, match=r"3x32x48 values, not 5 outputs: it is for task style"):
        build_network(architecture(outputs=5))
