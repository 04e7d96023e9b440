"""The rungs of short trainings, and who goes on from them."""

import math

import numpy as np
import pytest

from phonefit.pipeline.search.fidelity import front_ranks, goes_on, rungs


def test_rungs_are_at_shares_of_the_own_epochs():
    assert rungs(27, factor=3, least=1) == {9: 1, 3: 2, 1: 3}
    assert rungs(10, factor=3, least=2) == {3: 1}
    assert rungs(4, factor=2, least=1) == {2: 1, 1: 2}
    assert rungs(1, factor=3, least=1) == {}


@pytest.mark.parametrize(
    ("own", "rivals", "stays"),
    [
        (0.9, [0.1], True),  # fewer than the factor have come: everyone goes on
        (0.9, [0.1, 0.2], False),  # of three, one goes on
        (0.1, [0.9, 0.2], True),
        (0.2, [0.1, 0.3, 0.4, 0.5], False),  # of five still one
        (0.2, [0.1, 0.3, 0.4, 0.5, 0.6], True),  # of six, two
        (0.1, [0.1, 0.1, 0.1], True),  # alike: nobody is better
    ],
)
def test_the_best_third_of_a_rung_goes_on(own, rivals, stays):
    assert goes_on([own], [[rival] for rival in rivals], factor=3) is stays


def test_who_is_on_the_first_front_of_several_figures_goes_on():
    front = [[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]]
    assert all(goes_on(own, [one for one in front if one != own], factor=4) for own in front)
    assert not goes_on([2.0, 2.0], front, factor=4)
    assert not goes_on([3.5, 3.5], [*front, [3.2, 3.2]], factor=2)
    assert goes_on([2.0, 2.0], [[1.0, 1.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0]], factor=2)  # second of five


def test_an_unknown_figure_is_beaten_by_nobody():
    assert goes_on([0.9, math.nan], [[0.1, 1.0], [0.2, 1.0], [0.3, 1.0]], factor=3)


def test_fronts_agree_with_the_definition():
    costs = np.random.default_rng(0).integers(0, 5, (40, 3)).astype(float)
    left, expected, number = set(range(len(costs))), np.zeros(len(costs)), 0
    while left:
        front = {
            one
            for one in left
            if not any((costs[two] <= costs[one]).all() and (costs[two] < costs[one]).any() for two in left)
        }
        expected[list(front)] = number
        left -= front
        number += 1
    assert front_ranks(costs).tolist() == expected.tolist()
