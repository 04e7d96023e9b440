"""What every model family that gives outputs for labels must do. A new one is covered by being registered.

What gives pictures is in tests/unit/models/test_style_net.py.
"""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.families import style_net
from phonefit.models.families.blocks import ConvNorm, round_channels, same_padding, scale_blocks
from phonefit.models.registry import MODELS, build_network, check_network
from phonefit.models.spec import Architecture, HeadOptions, ModelSpec

FAMILIES = {name: spec for name, spec in MODELS.items() if spec != style_net.SPEC}
families = pytest.mark.parametrize("spec", FAMILIES.values(), ids=FAMILIES)
WIDTH = 0.25


def small(spec: ModelSpec, **changes: object) -> Architecture:
    usual = {"family": spec.name, "width": WIDTH, "outputs": 3, "height": 32, "width_pixels": 48}
    return Architecture.model_validate(usual | changes)


def build(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    return build_network(architecture).eval()


def parameters(architecture: Architecture) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(architecture).parameters())


@families
def test_it_maps_pictures_to_outputs_at_its_smallest_size_and_others(spec: ModelSpec) -> None:
    for height, width in ((spec.minimum_size, spec.minimum_size), (33, 70)):
        architecture = small(spec, height=height, width_pixels=width)
        network = build(architecture)
        check_network(network, architecture)
        outputs = network(torch.rand(2, 3, height, width))
        assert outputs.shape == (2, 3)
        assert outputs.isfinite().all()


@families
def test_depth_width_and_head_change_its_size(spec: ModelSpec) -> None:
    by_depth = [parameters(small(spec, depth=depth)) for depth in (0.5, 1.0, 2.0, 3.0)]
    by_width = [parameters(small(spec, width=width)) for width in (0.25, 0.5, 1.0, 1.5)]
    by_head = [parameters(small(spec, head=HeadOptions(hidden=hidden))) for hidden in ((), (64,), (64, 64), (128, 64))]
    for counts in (by_depth, by_width, by_head):
        assert counts == sorted(counts)
        assert len(set(counts)) > 2
    assert by_width == sorted(set(by_width))
    assert by_head == sorted(set(by_head))


@families
def test_its_published_size_is_right(spec: ModelSpec) -> None:
    height, width = spec.preprocess.height, spec.preprocess.width
    architecture = Architecture(family=spec.name, outputs=1000, height=height, width_pixels=width)
    with torch.device("meta"):
        network = build_network(architecture)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == spec.parameters


@families
def test_its_channels_are_multiples_of_eight(spec: ModelSpec) -> None:
    network = build(small(spec, width=0.3))
    channels = [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert channels
    assert all(count % 8 == 0 for count in channels)


@families
def test_its_task_part_is_the_module_head(spec: ModelSpec) -> None:
    network = build(small(spec, head=HeadOptions(hidden=(16,), dropout=0.5)))
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert linear == ["head.hidden0", "head.output"]
    assert network.get_submodule("head.dropout").p == 0.5


@families
def test_it_survives_a_checkpoint_with_the_same_digest_twice(spec: ModelSpec, tmp_path: Path) -> None:
    architecture = small(spec)
    info = CheckpointInfo(
        architecture=architecture, task="classification", labels=("a", "b", "c"), preprocess=spec.preprocess
    )
    network = build(architecture)
    first = Checkpoint.save(tmp_path / "one", network, info)
    second = Checkpoint.save(tmp_path / "two", first.load(), info)
    pictures = torch.rand(1, 3, 32, 48)
    assert first.info.modules == {}
    assert first.digest == second.digest
    assert torch.equal(second.load()(pictures), network(pictures))


@families
def test_a_training_step_reaches_every_parameter(spec: ModelSpec) -> None:
    network = build(small(spec, height=64, width_pixels=64)).train()
    network(torch.rand(4, 3, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@families
def test_torch_export_gives_the_same_outputs(spec: ModelSpec) -> None:
    network, pictures = build(small(spec, depth=0.5)), torch.rand(1, 3, 32, 48)
    exported = torch.export.export(network, (pictures,))
    assert torch.allclose(exported.module()(pictures), network(pictures), atol=1e-5)


@families
def test_pruning_a_group_of_channels_leaves_it_runnable_and_recordable(spec: ModelSpec, tmp_path: Path) -> None:
    import torch_pruning

    architecture = small(spec)
    network, pictures = build(architecture), torch.rand(1, 3, 32, 48)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=pictures)
    before = sum(parameter.numel() for parameter in network.parameters())
    pruned = 0
    for group in list(graph.get_all_groups(ignored_layers=[network.get_submodule("head.output")])):
        layer = group[0].dep.target.module
        if isinstance(layer, nn.Conv2d) and layer.out_channels >= 16:
            group.prune(idxs=list(range(8)))
            pruned += 1
            break
    assert pruned == 1
    assert sum(parameter.numel() for parameter in network.parameters()) < before
    outputs = network(pictures)
    info = CheckpointInfo(
        architecture=architecture, task="classification", labels=("a", "b", "c"), preprocess=spec.preprocess
    )
    checkpoint = Checkpoint.save(tmp_path, network, info)
    assert checkpoint.info.modules
    assert torch.equal(checkpoint.load()(pictures), outputs)


@families
def test_its_preprocessing_fits_it(spec: ModelSpec) -> None:
    assert min(spec.preprocess.height, spec.preprocess.width) >= spec.minimum_size
    lowest = [(0 - mean) / std for mean, std in zip(spec.preprocess.mean, spec.preprocess.std, strict=True)]
    highest = [(255 - mean) / std for mean, std in zip(spec.preprocess.mean, spec.preprocess.std, strict=True)]
    assert all(-3 < value < 0 for value in lowest)
    assert all(0 < value < 3 for value in highest)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 11), (2, 1)])
def test_same_padding_gives_the_outputs_of_tensorflow(size: tuple[int, int], stride: int, kernel: int) -> None:
    layer = ConvNorm(4, 6, kernel, stride, activation=None, size=size).eval()
    weight, pictures = torch.rand(6, 4, kernel, kernel), torch.rand(2, 4, *size)
    (top, bottom), (left, right) = (same_padding(pixels, kernel, stride) for pixels in size)
    expected = functional.conv2d(functional.pad(pictures, (left, right, top, bottom)), weight, stride=stride)
    with torch.no_grad():
        layer.get_submodule("conv").weight.copy_(weight)
        outputs = layer(pictures)
    assert outputs.shape[2:] == tuple(-(-pixels // stride) for pixels in size)
    assert torch.allclose(outputs, expected, atol=1e-3)


def test_where_tensorflow_puts_the_odd_zero() -> None:
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(56, 5, 2) == (1, 2)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(14, 5, 1) == (2, 2)


def test_channels_and_blocks_are_rounded() -> None:
    assert [round_channels(count) for count in (1, 12, 24 * 1.1, 32 * 0.35, 40, 90)] == [8, 16, 24, 16, 40, 88]
    assert [scale_blocks(3, depth) for depth in (0.1, 0.5, 1.0, 1.5)] == [1, 2, 3, 5]
