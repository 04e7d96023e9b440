from dataclasses import replace

import pytest

from phonefit.pipeline.compress.prune_schedule import Ranked, blocks_in_order, epochs_of, kept_after, plan_of, within
from phonefit.pipeline.compress.prune_units import Part
from phonefit.pipeline.recipe_steps import PruneConfig, RecoverConfig


def group(root, scores, unit=1):
    order = sorted(range(len(scores)), key=lambda channel: scores[channel])
    units = tuple(tuple(range(channel * unit, (channel + 1) * unit)) for channel in order)
    return Ranked(root, units, tuple(scores[channel] for channel in order))


def plan(groups, ratio, **settings):
    blocks = blocks_in_order(groups, PruneConfig(ratio=ratio, **settings), {})
    return plan_of(within(blocks, int(ratio * sum(one.size for one in groups))))


def removed(groups, **config):
    return {root: len(channels) for root, channels in plan(groups, **config).items()}


def test_the_least_important_channels_go():
    scores = [1.0] * 16
    for channel in (1, 3, 5, 7, 8, 9, 14, 15):
        scores[channel] = 0.1
    assert plan([group("a", scores)], ratio=0.5) == {"a": [1, 3, 5, 7, 8, 9, 14, 15]}


def test_the_ratio_is_over_all_groups_together():
    groups = [group("weak", [0.1] * 32), group("strong", [1.0] * 96)]
    assert removed(groups, ratio=0.125) == {"weak": 16}  # 16 of 128, all from the weak one
    assert removed(groups, ratio=0.125, round_to=1) == {"weak": 16}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 0.5, 0.6])
def test_what_is_removed_is_the_ratio_less_than_one_block_below(ratio):
    groups = [group(str(size), [1.0 + channel / size for channel in range(size)]) for size in (16, 64, 128, 320)]
    total = sum(removed(groups, ratio=ratio).values())
    assert ratio * 528 - 8 < total <= ratio * 528


def test_what_remains_is_a_multiple_of_round_to():
    assert removed([group("a", [1.0] * 20)], ratio=0.25) == {"a": 4}
    assert removed([group("a", [1.0] * 20)], ratio=0.6) == {"a": 12}
    assert removed([group("small", [1.0] * 6)], ratio=0.5) == {}


def test_units_of_several_channels_go_whole_and_leave_a_multiple_of_round_to():
    assert plan([group("heads", [3.0, 1.0, 2.0, 4.0], unit=16)], ratio=0.6) == {"heads": [*range(16, 48)]}
    assert removed([group("grouped", [1.0] * 16, unit=4)], ratio=0.5) == {"grouped": 32}
    assert removed([group("grouped", [1.0] * 16, unit=4)], ratio=0.1, round_to=8) == {}
    assert removed([group("grouped", [1.0] * 16, unit=4)], ratio=0.1, round_to=2) == {"grouped": 4}


def test_no_group_loses_more_than_its_limit():
    groups = [group("weak", [0.01] * 40), group("strong", [1.0] * 40)]
    assert removed(groups, ratio=0.5, layer_limit=0.6) == {"weak": 24, "strong": 16}


def test_the_limit_holds_for_each_layer_of_a_group():
    halves = (Part("left", "out", frozenset(range(8))), Part("right", "out", frozenset(range(8, 16))))
    ranks = replace(group("joined", [float(channel) for channel in range(16)]), parts=halves)
    assert plan([ranks], ratio=0.5, layer_limit=0.6, round_to=1) == {"joined": [0, 1, 2, 3, 8, 9, 10, 11]}


def test_the_limit_of_a_group_counts_what_earlier_steps_removed():
    config = PruneConfig(ratio=0.5, layer_limit=0.5)
    assert len(plan_of(blocks_in_order([group("a", [1.0] * 40)], config, {("a", "out"): 64}))["a"]) == 8


@pytest.mark.parametrize(("growth", "kept"), [("geometric", [0.5, 0.25]), ("linear", [0.625, 0.25])])
def test_steps_go_a_part_of_the_way_each(growth, kept):
    config = PruneConfig(ratio=0.75, steps=2, growth=growth)
    assert [kept_after(step, config, 0.25) for step in (1, 2)] == pytest.approx(kept)


def test_epochs_are_shared_out_and_none_is_lost():
    config = PruneConfig(ratio=0.5, steps=3, recover=RecoverConfig(epochs=5))
    assert [epochs_of(step, config) for step in (1, 2, 3)] == [1, 2, 2]
