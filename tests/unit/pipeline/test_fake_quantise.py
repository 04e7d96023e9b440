"""Fake quantisation: where values are rounded, and to what."""

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.models.errors import ModelError
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.fake_quantise import WeightGrid, fake_quantised, on_grid
from phonefit.pipeline.compress.layer_graph import layers_of, trace
from tests.tiny import ARCHITECTURE, LABELS, SIZE, TinyPictures, tiny_checkpoint

ASKED = Quantisation(calibration=CalibrationSet(samples=16))
PICTURES = torch.from_numpy(TinyPictures().inputs("validation", 0, 16))


@pytest.fixture
def network(tmp_path):
    return tiny_checkpoint(tmp_path / "checkpoint").load()


def simulated(network, **changes):
    asked = ASKED.model_copy(update=changes)
    return fake_quantised(trace(network, ARCHITECTURE), asked, TinyPictures().calibration(asked.calibration))


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_rounded_to_symmetric_int8(per_channel):
    weight = (
        torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1, 5, 20, 0.1])[:, None, None, None]
    )
    values = weight.numpy()
    largest = np.abs(values).max(axis=(1, 2, 3) if per_channel else None, keepdims=True)
    expected = np.round(values / (largest / 127)) * (largest / 127)
    np.testing.assert_allclose(WeightGrid(per_channel)(weight).numpy(), expected, atol=1e-5)


def test_activations_are_rounded_to_256_steps_of_which_one_is_zero():
    values = torch.linspace(-1, 3, 1001)
    rounded = on_grid(values, torch.tensor(-0.5), torch.tensor(2.0))
    assert len(rounded.unique()) == 256
    assert (rounded.min(), rounded.max()) == pytest.approx((-0.5, 2.0), abs=0.01)
    assert 0 in rounded
    positive = on_grid(values, torch.tensor(1.0), torch.tensor(2.0))  # a range that does not hold zero is stretched
    assert positive.min() == 0


def test_gradients_pass_through_where_values_are_in_range():
    values = torch.tensor([-3.0, 0.1, 0.7, 3.0], requires_grad=True)
    on_grid(values, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 0]


def test_without_rounding_the_graph_computes_what_the_network_computes(network):
    network_outputs = network(PICTURES)
    graph = simulated(network)
    *_, (_, outputs) = graph.walk(frozenset()).through(PICTURES)
    torch.testing.assert_close(outputs, network_outputs, rtol=1e-5, atol=1e-5)  # BatchNorm is folded
    rounded = graph.module(PICTURES)
    assert 0 < (rounded - network_outputs).abs().max() < 0.1 * network_outputs.std()


def test_values_are_rounded_where_the_converters_round_them(network):
    graph = simulated(network).module.graph
    rounds = [node for node in graph.nodes if node.op == "call_module" and "activation" in str(node.target)]
    # the picture, layers after their clamp, inputs and result of the residual's addition
    assert [str(node.args[0].target) for node in rounds] == [
        "input", "aten.hardtanh.default", "aten.relu6.default", "aten.conv2d.default", "aten.add.Tensor",
        "aten.hardtanh.default", "aten.linear.default",
    ]  # fmt: skip
    pool = next(node for node in graph.nodes if "adaptive_avg_pool2d" in str(node.target))
    shared = next(iter(pool.users))
    assert shared.target is on_grid  # the pool keeps the range of what it pools
    assert str(shared.args[1].target).startswith(str(pool.args[0].target))


def test_padding_is_quantised_before_it_is_padded():
    torch.manual_seed(0)
    network = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, stride=2), nn.Flatten())
    graph = fake_quantised(trace(network, ARCHITECTURE), ASKED, PICTURES.numpy()).module.graph
    pad = next(node for node in graph.nodes if "pad" in str(node.target))
    assert str(pad.args[0].target) == "activation_ranges.0"
    assert all("conv2d" in str(user.target) for user in pad.users)


def test_float_layers_keep_their_weights(network):
    graph = simulated(network, float_layers=("3", "9"))
    assert list(graph.quantisers) == [layer.name for layer in graph.layers] == ["0", "4"]
    assert (
        sum(node.op == "call_module" and "weight_grids" in str(node.target) for node in graph.module.graph.nodes) == 2
    )


def test_the_graph_learns_the_parameters_of_the_network(network):
    graph = simulated(network)
    ours = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in graph.module.parameters()} == ours
    statistics = network[1].running_mean.clone()
    graph.module.train()(PICTURES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network[1].running_mean, statistics)  # frozen


def test_ranges_follow_the_activations_while_training_only(network):
    graph = simulated(network).module
    before = graph.get_buffer("activation_ranges.0.high").clone()
    graph.eval()(10 * PICTURES)
    assert torch.equal(graph.get_buffer("activation_ranges.0.high"), before)
    graph.train()(10 * PICTURES)
    assert graph.get_buffer("activation_ranges.0.high") > before


def test_layers_are_found_with_their_normalisation(network):
    found = [(layer.name, layer.norm_name) for layer in layers_of(trace(network, ARCHITECTURE))]
    assert found == [("0", "1"), ("3.depthwise", "3.norm"), ("3.pointwise", None), ("4", "5"), ("9", None)]


def test_a_network_that_depends_on_its_values_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] if x.sum() > 0 else -x.flatten(1)[:, :3]

    architecture = Architecture(factory="tests.tiny:build", outputs=len(LABELS), height=SIZE, width_pixels=SIZE)
    with pytest.raises(ModelError, match=r"quantise: torch\.export cannot trace the network.*remove qat"):
        trace(Branching(), architecture)
