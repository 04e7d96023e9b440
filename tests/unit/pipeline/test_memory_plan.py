"""The arena that activations need, laid out as LiteRT does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonefit.pipeline.convert.memory_plan import Block, arena_size


@pytest.mark.parametrize(
    ("blocks", "size"),
    [
        ([], 0),
        ([Block(0, 1, 64)], 64),
        ([Block(0, 1, 64), Block(1, 2, 128)], 192),
        ([Block(0, 1, 64), Block(2, 3, 128)], 128),  # the second takes the place of the first
        ([Block(0, 1, 128), Block(1, 2, 64), Block(2, 3, 128)], 192),  # a chain: at most two at once
        ([Block(0, 4, 64), Block(0, 1, 256), Block(2, 3, 128), Block(2, 3, 128)], 320),  # two fit into one gap
    ],
)
def test_blocks_that_never_meet_share_a_place(blocks, size):
    assert arena_size(blocks) == size


lifetimes = st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(1, 9))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(lifetimes, max_size=12))
def test_it_is_between_what_lives_at_once_and_the_sum(cases):
    blocks = [Block(first, first + length, size * 64) for first, length, size in cases]
    at_once = max((sum(one.size for one in blocks if one.first <= t <= one.last) for t in range(15)), default=0)
    assert at_once <= arena_size(blocks) <= sum(one.size for one in blocks)
