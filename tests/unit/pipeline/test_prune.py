import pytest

from phonefit.pipeline.compress.prune import Group, choose_blocks
from phonefit.pipeline.recipe_steps import PruneConfig


def group(root, scores):
    order = sorted(range(len(scores)), key=lambda channel: scores[channel])
    return Group(root, len(scores), tuple(order), tuple(scores[channel] for channel in order))


def removed(groups, **config):
    return {root: len(channels) for root, channels in choose_blocks(groups, PruneConfig(**config)).items()}


def test_the_least_important_channels_go():
    scores = [1.0] * 16
    for channel in (1, 3, 5, 7, 8, 9, 14, 15):
        scores[channel] = 0.1
    assert choose_blocks([group("a", scores)], PruneConfig(ratio=0.5)) == {"a": [1, 3, 5, 7, 8, 9, 14, 15]}


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


def test_no_group_loses_more_than_its_limit():
    groups = [group("weak", [0.01] * 40), group("strong", [1.0] * 40)]
    assert removed(groups, ratio=0.5, layer_limit=0.6) == {"weak": 24, "strong": 16}
