import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from phonefit.device_bench.report import Report
from phonefit.models.spec import Architecture
from phonefit.models.tasks import task
from phonefit.pipeline.compress import cp as cp_module
from phonefit.pipeline.compress.chain import effective_weight
from phonefit.pipeline.compress.cost import layer_costs, multiply_adds, parameters
from phonefit.pipeline.compress.decompose import apply, describe
from phonefit.pipeline.compress.decompose_plan import Study, plan_replacements
from phonefit.pipeline.compress.factors import METHODS, Layer
from phonefit.pipeline.compress.layer_inputs import sample_inputs
from phonefit.pipeline.compress.on_device import keep_faster
from phonefit.pipeline.compress.ranks import energy_ranks, levels
from phonefit.pipeline.compress.sensitivity import replace_layer
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import DecomposeConfig
from tests.tiny import tiny_checkpoint, tiny_context

SIZE = 12
ARCHITECTURE = Architecture(factory="not.used:here", outputs=1, height=SIZE, width_pixels=SIZE)
EXACT = DecomposeConfig(energy=0.999999, least_saving=0.05, aware=False)
LINEAR, POINTWISE, SPATIAL = ("linear", "pointwise", "spatial")


def decompose_layers(network, config, pictures=None):
    """Replaces layers of `network` in place; returns the notes."""
    plan = planned(network, config, pictures)
    apply(network, plan.replacements)
    return describe(plan)


def planned(network, config, pictures=None):
    pictures = torch.randn(16, 3, SIZE, SIZE) if pictures is None else pictures
    return plan_replacements(
        network, config, layer_costs(network, ARCHITECTURE), Study(pictures, task("classification"))
    )


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
    "3x3 uneven": lambda: nn.Conv2d(24, 32, (3, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    "3x3 dilation": lambda: nn.Conv2d(24, 32, 3, dilation=2, padding=2),
    "3x3 same": lambda: nn.Conv2d(24, 32, 3, padding="same"),
    "3x3 reflect": lambda: nn.Conv2d(24, 32, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("aware", [False, True])
def test_factors_of_a_low_rank_layer_compute_the_same(name, aware):
    torch.manual_seed(0)
    network = with_stem(LAYERS[name]())
    pictures = torch.randn(2, 3, SIZE, SIZE)
    expected = network(pictures).detach()
    work = multiply_adds(network, ARCHITECTURE)
    decompose_layers(network, EXACT.model_copy(update={"aware": aware}), pictures)
    assert isinstance(network[-1], nn.Sequential)
    torch.testing.assert_close(network(pictures), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert multiply_adds(network, ARCHITECTURE) < work


def prepared(module, method, aware=True, pictures=None):
    """The factorisation of a layer with 24 inputs, and correlated inputs for it."""
    torch.manual_seed(1)
    vector = isinstance(module, nn.Linear)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), module) if vector else nn.Sequential(module)
    mix = torch.randn(24, 24) * torch.linspace(2, 0.02, 24)
    pictures = torch.einsum("ci,nihw->nchw", mix, torch.randn(64, 24, SIZE, SIZE)) + 1
    name = str(len(network) - 1)
    inputs = sample_inputs(network, [name], pictures, seed=0)[name] if aware else None
    out = network(pictures[:1]).shape
    places = 1 if vector else out[2] * out[3]
    costs = nn.Sequential(*network)
    found = {}
    handle = module.register_forward_hook(lambda _, given, output: found.update(given=given[0].shape, out=output.shape))
    costs(pictures[:1])
    handle.remove()
    given = found["given"]
    cost = layer_cost(module, places, given, found["out"])
    layer = Layer(name, module, cost, inputs)
    return METHODS[method][layer.kind](layer), network, pictures


def layer_cost(module, places, given, out):
    from phonefit.pipeline.compress.cost import LayerCost

    if isinstance(module, nn.Linear):
        return LayerCost(module.weight.numel(), 1, 1, 1)
    return LayerCost(module.weight.numel() * places, given[2] * given[3], places, out[2] * given[3])


def multiply_adds_of(chain, inputs):
    """Counted from the shapes that a forward pass meets."""
    total = 0
    for layer in chain:
        inputs = layer(inputs)
        total += layer.weight.numel() * (inputs[0, 0].numel() if inputs.ndim == 4 else 1)
    return total


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("method", ["svd", "tucker", "tensor_train"])
@pytest.mark.parametrize("name", LAYERS)
def test_full_ranks_compute_the_same_and_an_error_falls_with_the_ranks(name, method, aware):
    torch.manual_seed(0)
    module = LAYERS[name]()
    factorisation, network, pictures = prepared(module, method, aware)
    expected = network(pictures).detach()
    chains = {ranks: factorisation.build(ranks) for ranks in levels(factorisation)}
    for ranks, chain in chains.items():
        fed = nn.Sequential(*network[:-1])(pictures[:1])
        assert multiply_adds_of(chain, fed) == factorisation.multiply_adds(ranks)
        assert sum(layer.weight.numel() for layer in chain) == factorisation.parameters(ranks)
    errors = [factorisation.layer.error(chain) for chain in chains.values()]
    assert all(first >= last for first, last in itertools.pairwise(errors))
    full = tuple(len(spectrum) for spectrum in factorisation.spectra)
    network[-1] = factorisation.build(full)
    torch.testing.assert_close(network(pictures), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


SHAPES = [
    (outputs, inputs, kernel, stride)
    for outputs, inputs in ((1, 5), (3, 2), (40, 3), (5, 64))
    for kernel in ((1, 1), (3, 1), (1, 3), (2, 5))
    for stride in (1, 2)
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["svd", "tucker", "tensor_train"])
def test_full_ranks_compute_the_same_for_odd_shapes(method, shape):
    outputs, inputs, kernel, stride = shape
    torch.manual_seed(0)
    module = nn.Conv2d(inputs, outputs, kernel, stride, padding=1)
    pictures = torch.randn(8, inputs, SIZE, SIZE)
    seen = sample_inputs(nn.Sequential(module), ["0"], pictures, seed=0)["0"]
    layer = Layer("0", module, layer_cost(module, 1, pictures.shape, module(pictures).shape), seen)
    factorisation = METHODS[method][layer.kind](layer)
    chain = factorisation.build(tuple(len(spectrum) for spectrum in factorisation.spectra))
    expected = module(pictures)
    torch.testing.assert_close(chain(pictures), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("method", ["svd", "tucker", "tensor_train"])
@pytest.mark.parametrize("name", ["linear", "1x1", "3x3"])
def test_what_the_layer_sees_makes_the_error_on_it_smaller(name, method):
    errors = []
    for aware in (True, False):
        torch.manual_seed(0)
        factorisation, network, pictures = prepared(LAYERS[name](), method, aware)
        ranks = levels(factorisation)[len(levels(factorisation)) // 3]
        expected = network(pictures)
        network[-1] = factorisation.build(ranks)
        errors.append(float((network(pictures) - expected).norm() / (expected - expected.mean(0)).norm()))
    assert errors[0] < 0.8 * errors[1]


def test_the_middle_rank_of_a_tensor_train_is_what_the_others_leave():
    module = nn.Conv2d(24, 24, 3, bias=False)
    module.weight.data = low_rank(24, 24, 1, 3) + 0.01 * torch.randn(24, 24, 3, 3)
    factorisation, _, _ = prepared(module, "tensor_train", aware=False)
    for energy in torch.linspace(0.1, 0.99, 20).tolist():
        ranks = energy_ranks(factorisation, energy)
        assert ranks[1] <= 3 * min(ranks[0], ranks[2])
        assert factorisation.build(ranks) is not None


def test_cp_of_a_layer_of_that_rank_computes_the_same():
    torch.manual_seed(0)
    module = nn.Conv2d(24, 32, 3, stride=(2, 1), padding=1)
    parts = [torch.randn(size, 4) for size in (32, 24, 3, 3)]
    module.weight.data = torch.einsum("or,ir,hr,wr->oihw", *parts)
    factorisation, network, pictures = prepared(module, "cp")
    chain = factorisation.build((4,))
    assert [layer.groups for layer in chain] == [1, 4, 4, 1]
    expected = network(pictures)
    torch.testing.assert_close(chain(pictures), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    assert multiply_adds_of(chain, pictures[:1]) == factorisation.multiply_adds((4,))


def test_cp_comes_nearer_with_more_ranks():
    torch.manual_seed(0)
    factorisation, _, _ = prepared(nn.Conv2d(24, 32, 3), "cp", aware=False)
    errors = [factorisation.layer.error(factorisation.build((rank,))) for rank in (4, 16, 48)]
    assert errors[0] > errors[1] > errors[2]


def test_a_layer_whose_cp_diverges_is_left_alone(monkeypatch):
    config = EXACT.model_copy(update={"method": "cp", "energy": 0.5})
    network = with_stem(LAYERS["3x3"]())
    assert "cp rank" in decompose_layers(network, config)[0]
    monkeypatch.setattr(cp_module, "NORM_LIMIT", 0.1)
    network = with_stem(LAYERS["3x3"]())
    assert "left alone, as cp diverges there: 1" in decompose_layers(network, config)
    assert isinstance(network[1], nn.Conv2d)


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
    decompose_layers(network, DecomposeConfig(energy=energy, least_saving=0, aware=False))
    down, up = network[-1]
    assert down.out_features == rank
    lost = (up.weight @ down.weight - original).square().sum() / original.square().sum()
    assert lost <= 1 - energy


def test_vbmf_finds_the_planted_rank_and_leaves_noise_alone():
    config = EXACT.model_copy(update={"ranks": "vbmf"})
    network = with_stem(nn.Conv2d(24, 64, 1), rank=8)
    network[1].weight.data += 0.05 * torch.randn(network[1].weight.shape)
    assert "1 svd rank 8 " in decompose_layers(network, config)[0]
    noise = with_stem(nn.Conv2d(24, 64, 1))
    noise[1].weight.data = torch.randn(noise[1].weight.shape)
    assert "left alone, as VBMF takes all of them for noise: 1" in decompose_layers(noise, config)


def test_a_rank_is_not_rounded_up_where_that_would_cost_the_saving():
    network = with_stem(nn.Linear(24, 9), rank=3)  # rank 8 would cost 264 of 216 multiply-adds, rank 3 costs 99
    decompose_layers(network, EXACT)
    assert network[-1][0].out_features == 3


def test_a_layer_that_would_not_save_enough_is_left_alone_and_named():
    network = with_stem(nn.Linear(24, 32), rank=8)  # 448 of 768 multiply-adds: saves 42 %
    left = decompose_layers(network, EXACT.model_copy(update={"least_saving": 0.5}))
    assert isinstance(network[-1], nn.Linear)
    assert "left alone, as factors would not save enough: 3" in left
    decompose_layers(network, EXACT.model_copy(update={"least_saving": 0.4}))
    assert isinstance(network[-1], nn.Sequential)


def test_kept_and_grouped_layers_stay():
    network = with_stem(nn.Conv2d(24, 32, 3))
    config = EXACT.model_copy(update={"keep": ("1",)})
    notes = decompose_layers(network, config)
    assert [type(module) for module in network] == [nn.Conv2d, nn.Conv2d]
    assert notes == ["no layer was replaced", "left alone, as they are grouped or depthwise: 1 convolutions"]


def two_layers():
    """Two equal layers in size: one nearly of rank 8, one with an even spectrum."""
    torch.manual_seed(0)
    planted, even = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
    planted.weight.data = low_rank(64, 64, 8, 3) / 300 + 0.001 * torch.randn(64, 64, 3, 3)
    layers = [nn.Conv2d(3, 64, 1), nn.ReLU(), planted, nn.ReLU(), even, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers).eval()


def budget(**target):
    return DecomposeConfig(ranks="budget", target=target)


def evenly_cut(network, share, aware, pictures):
    """Each layer alone brought to that share of its multiply-adds, by Tucker-2."""
    costs = layer_costs(network, ARCHITECTURE)
    inputs = sample_inputs(network, costs, pictures, seed=0)
    for name, cost in costs.items():
        layer = Layer(name, network.get_submodule(name), cost, inputs[name] if aware else None)
        factorisation = METHODS["tucker"][layer.kind](layer)
        allowed = [
            one for one in levels(factorisation) if factorisation.multiply_adds(one) <= share * cost.multiply_adds
        ]
        if allowed:
            replace_layer(network, name, factorisation.build(allowed[-1]))


@pytest.mark.parametrize(("share", "aware"), [(0.75, False), (0.75, True), (0.5, False), (0.5, True), (0.3, True)])
def test_a_budget_meets_its_target_and_beats_an_even_cut(share, aware):
    torch.manual_seed(0)
    pictures = torch.randn(32, 3, SIZE, SIZE)
    expected, whole = two_layers()(pictures).detach(), multiply_adds(two_layers(), ARCHITECTURE)
    even, chosen = two_layers(), two_layers()
    evenly_cut(even, share, aware, pictures)
    reached = multiply_adds(even, ARCHITECTURE) / whole
    decompose_layers(chosen, budget(multiply_adds=reached).model_copy(update={"aware": aware}), pictures)
    assert multiply_adds(chosen, ARCHITECTURE) / whole <= reached <= share
    losses = [float(task("classification").distillation_loss(one(pictures), expected, 1.0)) for one in (chosen, even)]
    assert losses[0] < 0.7 * losses[1]


def test_a_budget_of_bytes_is_met():
    network = two_layers()
    before = parameters(network)
    decompose_layers(network, budget(bytes=0.6))
    assert 0.45 * before < parameters(network) <= 0.61 * before  # biases come on top


def test_a_target_that_cannot_be_reached_says_what_can():
    with pytest.raises(RecipeError, match=r"target multiply_adds 0.001 cannot be reached: factors bring .* to 0\.\d\d"):
        decompose_layers(two_layers(), budget(multiply_adds=0.001))


def test_a_target_and_the_budget_go_together():
    with pytest.raises(ValueError, match="budget needs a target"):
        DecomposeConfig(ranks="budget")
    with pytest.raises(ValueError, match="target is met by ranks: budget; ranks is energy"):
        DecomposeConfig(target={"bytes": 0.5})
    with pytest.raises(ValueError, match="either multiply_adds or bytes"):
        budget(multiply_adds=0.5, bytes=0.5)


def test_the_effective_weight_is_that_of_the_chain():
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False),
        nn.Conv2d(4, 4, (3, 1), groups=4, bias=False),
        nn.Conv2d(4, 5, (1, 2), bias=False),
    )
    pictures = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(nn.functional.conv2d(pictures, effective_weight(chain)), chain(pictures))


class AskStandIn:
    """Answers with a latency that depends on the class of a layer, in place of a device."""

    identity = {"device": "stand-in"}  # noqa: RUF012

    def __init__(self, milliseconds):
        self.milliseconds, self.asked = milliseconds, 0

    def __call__(self, candidate):
        self.asked += 1
        return Report.model_construct(
            out_of_memory=False,
            figures={"latency": type("Figure", (), {"samples": (self.milliseconds(candidate) * 1e6,)})},
        )


def test_layers_that_the_device_is_not_faster_with_are_left_alone(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    network = checkpoint.load()
    architecture = checkpoint.info.architecture
    config = DecomposeConfig(energy=0.3)
    context = tiny_context(tmp_path)
    study = Study(torch.from_numpy(context.data.inputs("train", 0, 16)), context.task)
    plan = plan_replacements(network, config, layer_costs(network, architecture), study)
    assert {"3.pointwise", "4"} <= set(plan.replacements)

    def milliseconds(candidate):  # factors of the pointwise layer cost a millisecond, those of others save one
        changed = candidate.info.modules
        return 5 + ("3.pointwise" in changed) - bool(changed.keys() - {"3.pointwise"})

    ask = AskStandIn(milliseconds)
    kept = keep_faster(plan, checkpoint, replace(context, ask=ask))
    assert ask.asked == 1 + len(plan.replacements)
    assert set(kept.replacements) == set(plan.replacements) - {"3.pointwise"}
    note = "stand-in is not faster with factors: 3.pointwise (5.000 ms as it is, 6.000 ms with factors)"
    assert f"left alone, as {note}" in describe(kept)
    with pytest.raises(RecipeError, match="no device to ask"):
        keep_faster(plan, checkpoint, context)


def test_multiply_adds_follow_the_formula():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    # 6x6 places x 8 x 3 x 9, then 4x4 places x 8 x 9, then 128 x 5
    assert multiply_adds(network, ARCHITECTURE) == 36 * 8 * 27 + 16 * 8 * 9 + 640
