import pytest
import torch
from torch import nn

from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import layer_costs, multiply_adds
from phonefit.pipeline.compress.decompose import decompose_layers
from phonefit.pipeline.recipe_steps import DecomposeConfig

SIZE = 12
ARCHITECTURE = Architecture(factory="not.used:here", outputs=1, height=SIZE, width_pixels=SIZE)
EXACT = DecomposeConfig(energy=0.999999, least_saving=0.05)


def low_rank(outputs, inputs, rank, kernel=None):
    """Random weights of Tucker rank (rank, rank)."""
    torch.manual_seed(0)
    left, right = torch.randn(outputs, rank), torch.randn(inputs, rank)
    if kernel is None:
        return left @ right.T
    return torch.einsum("oa,ib,abhw->oihw", left, right, torch.randn(rank, rank, kernel, kernel))


def with_stem(layer, rank=4):
    """The layer behind a fixed depthwise layer, which is never decomposed, so that it sees 24 channels."""
    stem = nn.Conv2d(3, 24, 1, groups=3)
    if isinstance(layer, nn.Linear):
        network = nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)
    else:
        network = nn.Sequential(stem, layer)
    kernel = None if isinstance(layer, nn.Linear) else layer.kernel_size[0]
    layer.weight.data = low_rank(*layer.weight.shape[:2], rank, kernel)
    return network.eval()


LAYERS = {
    "linear": lambda: nn.Linear(24, 32),
    "linear without bias": lambda: nn.Linear(24, 32, bias=False),
    "1x1": lambda: nn.Conv2d(24, 32, 1),
    "1x1 stride and padding": lambda: nn.Conv2d(24, 32, 1, stride=2, padding=1),
    "3x3": lambda: nn.Conv2d(24, 32, 3, padding=1, bias=False),
    "3x3 stride": lambda: nn.Conv2d(24, 32, 3, stride=2, padding=1),
    "3x3 dilation": lambda: nn.Conv2d(24, 32, 3, dilation=2, padding=2),
    "3x3 same": lambda: nn.Conv2d(24, 32, 3, padding="same"),
    "3x3 reflect": lambda: nn.Conv2d(24, 32, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_factors_of_a_low_rank_layer_compute_the_same(name):
    torch.manual_seed(0)
    network = with_stem(LAYERS[name]())
    pictures = torch.randn(2, 3, SIZE, SIZE)
    expected = network(pictures).detach()
    work = multiply_adds(network, ARCHITECTURE)
    decompose_layers(network, EXACT, layer_costs(network, ARCHITECTURE))
    assert isinstance(network[-1], nn.Sequential)
    torch.testing.assert_close(network(pictures), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert multiply_adds(network, ARCHITECTURE) < work


@pytest.mark.parametrize(("energy", "rank"), [(0.5, 8), (0.79, 8), (0.81, 8), (0.96, 16)])
def test_the_rank_keeps_the_energy_and_is_a_multiple_of_eight(energy, rank):
    layer = nn.Linear(24, 64, bias=False)
    network = with_stem(layer)
    values = torch.tensor([8.0, 8.0] + [2.0] * 6 + [1.0] * 8 + [0.1] * 8)  # squared: 128, 24, 8, 0.08
    torch.manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(64, 24))
    right, _ = torch.linalg.qr(torch.randn(24, 24))
    layer.weight.data = left @ torch.diag(values) @ right.T
    original = layer.weight.data.clone()
    decompose_layers(network, DecomposeConfig(energy=energy, least_saving=0), layer_costs(network, ARCHITECTURE))
    down, up = network[-1]
    assert down.out_features == rank
    lost = (up.weight @ down.weight - original).square().sum() / original.square().sum()
    assert lost <= 1 - energy


def test_a_rank_is_not_rounded_up_where_that_would_cost_the_saving():
    network = with_stem(nn.Linear(24, 9), rank=3)  # rank 8 would cost 264 of 216 multiply-adds, rank 3 costs 99
    decompose_layers(network, EXACT, layer_costs(network, ARCHITECTURE))
    assert network[-1][0].out_features == 3


def test_a_layer_that_would_not_save_enough_is_left_alone_and_named():
    network = with_stem(nn.Linear(24, 32), rank=8)  # 448 of 768 multiply-adds: saves 42 %
    left = decompose_layers(network, EXACT.model_copy(update={"least_saving": 0.5}), layer_costs(network, ARCHITECTURE))
    assert isinstance(network[-1], nn.Linear)
    assert "left alone, as factors would not save 50%: 3" in left
    decompose_layers(network, EXACT.model_copy(update={"least_saving": 0.4}), layer_costs(network, ARCHITECTURE))
    assert isinstance(network[-1], nn.Sequential)


def test_kept_and_grouped_layers_stay():
    network = with_stem(nn.Conv2d(24, 32, 3))
    config = EXACT.model_copy(update={"keep": ("1",)})
    notes = decompose_layers(network, config, layer_costs(network, ARCHITECTURE))
    assert [type(module) for module in network] == [nn.Conv2d, nn.Conv2d]
    assert notes == ["no layer was replaced", "left alone, as they are grouped or depthwise: 1 convolutions"]


def test_multiply_adds_follow_the_formula():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    # 6x6 places x 8 x 3 x 9, then 4x4 places x 8 x 9, then 128 x 5
    assert multiply_adds(network, ARCHITECTURE) == 36 * 8 * 27 + 16 * 8 * 9 + 640
