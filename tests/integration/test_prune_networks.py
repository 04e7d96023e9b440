"""Pruned networks compute what the original computes with zeros in place of what was removed."""

import copy
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.prune_graph import prunable_groups, same_outputs, with_zeros, without
from phonefit.pipeline.compress.prune_units import within_parts
from phonefit.pipeline.compress.prune_work import Shapes
from tests.random_networks import BLOCKS, build
from tests.tiny import LABELS, PREPROCESS, SIZE

BLOCK_LISTS = st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=3)


def architecture_of(blocks, **arguments):
    return Architecture(
        factory="tests.random_networks:build",
        arguments={"blocks": blocks, **arguments},
        outputs=len(LABELS),
        height=SIZE,
        width_pixels=SIZE,
    )


def drawn(groups, source):
    """Some units of each group, never all channels of a layer."""
    plan = {}
    for group in groups:
        units = source.sample(group.units, source.randint(1, len(group.units) - 1))
        units = within_parts(units, [(part.roots, len(part.roots) - 1) for part in group.parts])
        plan[group.root] = sorted(channel for unit in units for channel in unit)
    return plan


def zeroed(network, plan, architecture):
    """The network with zeros in place of each parameter that its pruned copy lacks.

    Which those are is read off a copy whose parameters are their own positions: nothing is known about groups here.
    """
    tags = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in tags.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape))
    kept = dict(without(tags, plan, architecture).named_parameters())
    result = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            mask = torch.zeros(parameter.numel())
            mask[kept[name].long().flatten()] = 1
            parameter.mul_(mask.reshape(parameter.shape))
    return result


def output(network):
    pictures = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        return copy.deepcopy(network).double()(pictures)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@settings(max_examples=20, derandomize=True, deadline=None, phases=(Phase.generate,))
@given(blocks=BLOCK_LISTS, flatten=st.booleans(), seed=st.integers(0, 1000))
def test_removing_channels_changes_nothing_but_what_they_carried(blocks, flatten, seed):
    architecture = architecture_of(blocks, flatten=flatten, seed=seed)
    network = build(len(LABELS), blocks, flatten=flatten, seed=seed)
    groups, left = prunable_groups(network, architecture, ())
    plan = drawn(groups, random.Random(seed))
    assert plan
    pruned = without(network, plan, architecture)
    torch.testing.assert_close(output(pruned), output(zeroed(network, plan, architecture)), rtol=1e-9, atol=1e-9)
    assert set(left).isdisjoint(plan)
    work = Shapes(network, groups, architecture).without(plan)
    assert work == Shapes(pruned, (), architecture).without({})


@pytest.mark.parametrize(
    ("block", "pruned", "left"),
    [
        ("residual", {"0": 1, "1.body.0.0": 1}, set()),
        ("branches", {"1.left.0": 1, "1.right.0": 1}, set()),
        ("depthwise", {"1.0.0": 1, "1.1.0": 1}, set()),
        ("grouped", {"1.0.0": 4, "1.1.0": 4}, set()),
        ("multiplier", {"1.0.0": 16}, {"0"}),
        ("heads of fixed number", {"1.value": 4}, set()),
        ("heads of fixed width", {"1.value": 4}, set()),
        ("gate", {"0": 1, "1.squeeze": 1}, set()),
        ("shuffle", {"2.0": 1}, {"1.body.0"}),
    ],
)
def test_what_is_pruned_in_which_units_and_what_is_left_alone(block, pruned, left):
    groups, alone = prunable_groups(build(len(LABELS), [block]), architecture_of([block]), ())
    units = {group.root: len(group.units[0]) for group in groups}
    assert units.items() >= pruned.items()
    assert set(alone) == left


def test_heads_of_a_fixed_width_go_whole_and_of_a_fixed_number_lose_the_same_channels_each():
    def first_unit(block):
        groups, _ = prunable_groups(build(len(LABELS), [block]), architecture_of([block]), ())
        return next(group.units[0] for group in groups if group.root == "1.value")

    assert first_unit("heads of fixed width") == (0, 1, 2, 3)
    assert first_unit("heads of fixed number") == (0, 4, 8, 12)


def test_a_wrong_order_of_channels_is_noticed():
    architecture, network = architecture_of(["branches"]), build(len(LABELS), ["branches"])
    groups, _ = prunable_groups(network, architecture, ())
    group = next(one for one in groups if one.root == "1.left.0")
    plan = {group.root: [0, 1]}
    pruned = without(network, plan, architecture)
    assert same_outputs(pruned, with_zeros(network, groups, plan), architecture)
    assert not same_outputs(pruned, with_zeros(network, groups, {group.root: [0, 2]}), architecture)


class Mean(nn.Module):
    """Averages over channels: fewer of them give another average."""

    def __init__(self, outputs):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(1, outputs, 30)

    def forward(self, pictures):
        return self.last(self.first(pictures).relu().mean(1, keepdim=True)).flatten(1)


def mean(outputs):
    return Mean(outputs)


def test_a_group_whose_removal_changes_the_function_is_left_alone():
    architecture = Architecture(factory=f"{__name__}:mean", outputs=3, height=SIZE, width_pixels=SIZE)
    torch.manual_seed(0)
    groups, left = prunable_groups(Mean(3), architecture, ())
    assert groups == []
    assert "first" in left


LOAD = """
import sys
from pathlib import Path
import numpy as np
import torch
from phonefit.models.checkpoint import Checkpoint
folder = Path(sys.argv[1])
pictures = torch.from_numpy(np.load(folder / "pictures.npy"))
with torch.no_grad():
    outputs = {path.name: Checkpoint(path).load()(pictures).numpy() for path in folder.iterdir() if path.is_dir()}
np.savez(folder / "outputs.npz", **outputs)
"""


def test_pruned_networks_load_in_another_process_with_equal_outputs(tmp_path):
    pictures = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    expected = {}
    lists = [*([name] for name in BLOCKS), ["grouped", "shuffle", "heads of fixed width"]]
    for number, blocks in enumerate(lists):
        architecture, network = architecture_of(blocks), build(len(LABELS), blocks)
        groups, _ = prunable_groups(network, architecture, ())
        pruned = without(network, drawn(groups, random.Random(number)), architecture)
        info = CheckpointInfo(architecture=architecture, task="classification", labels=LABELS, preprocess=PREPROCESS)
        Checkpoint.save(tmp_path / str(number), pruned, info)
        with torch.no_grad():
            expected[str(number)] = pruned(pictures).numpy()
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], check=True)
    loaded = np.load(tmp_path / "outputs.npz")
    assert set(loaded) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(loaded[name], values, rtol=1e-5, atol=1e-6)
