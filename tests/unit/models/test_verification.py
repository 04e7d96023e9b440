"""Figures over pairs of embeddings."""

import numpy as np
import pytest

from phonefit.models.errors import DataError
from phonefit.models.tasks import verification
from phonefit.models.tasks.verification import (
    Pairs,
    accept_rate,
    accuracy,
    accuracy_interval,
    best_threshold,
    cosines,
    pairs_of,
    rates,
    wrong_by,
)

VALUES = np.array([0.9, 0.6, 0.2, 0.5, 0.1, -0.3, 0.0])
SAME = np.array([True, True, True, False, False, False, False])


def people(count=12, pictures=6, noise=0.7, seed=0):
    """Embeddings of identities, with noise around a direction of each."""
    random = np.random.default_rng(seed)
    targets = np.arange(count * pictures) % count
    centres = random.normal(size=(count, 8))
    return (centres[targets] + noise * random.normal(size=(len(targets), 8))).astype(np.float32), targets


def test_all_pairs_are_taken_once():
    pairs = pairs_of(np.array([0, 0, 1, 0]))
    found = {(a, b): same for a, b, same in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same, strict=True)}
    assert found == {(0, 1): True, (0, 3): True, (1, 3): True, (0, 2): False, (1, 2): False, (2, 3): False}


def test_of_too_many_a_fixed_sample_of_each_kind_is_taken(monkeypatch):
    monkeypatch.setattr(verification, "MOST", 300)
    targets = np.arange(400) % 8
    one, again = pairs_of(targets), pairs_of(targets)
    assert one.same.sum() == 300
    assert 200 < (~one.same).sum() <= 300
    assert ((targets[one.first] == targets[one.second]) == one.same).all()
    assert len(set(zip(one.first.tolist(), one.second.tolist(), strict=True))) == len(one.first)
    np.testing.assert_array_equal(one.first, again.first)


@pytest.mark.parametrize(("targets", "missing"), [([0, 1, 2], "one identity"), ([5, 5, 5], "two identities")])
def test_without_both_kinds_of_pairs_it_says_what_to_do(targets, missing):
    with pytest.raises(DataError, match=rf"no two are of {missing}.*data\.split\.by"):
        pairs_of(np.array(targets))


def test_cosines_do_not_depend_on_lengths_and_zeros_are_near_nothing():
    pairs = Pairs(np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    outputs = np.array([[1, 0], [5, 5], [0, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosines(outputs, pairs), [np.sqrt(0.5), 0], atol=1e-7)


def test_the_best_threshold_is_the_best_of_all():
    threshold = best_threshold(VALUES, SAME)
    assert 0.1 < threshold < 0.2
    assert accuracy(VALUES, SAME, threshold) == pytest.approx((1 + 3 / 4) / 2)
    assert accuracy(VALUES, SAME, threshold) == max(accuracy(VALUES, SAME, each) for each in np.linspace(-1, 1, 401))


def test_equal_cosines_are_told_alike():
    values = np.array([0.5, 0.5, 0.5, 0.2])
    same = np.array([True, False, True, False])
    assert accuracy(values, same, best_threshold(values, same)) == pytest.approx(0.75)


def test_true_accepts_are_those_above_all_but_the_allowed_false_ones():
    assert accept_rate(VALUES, SAME, 0.01) == pytest.approx(2 / 3)  # no false accept of 4 is allowed: above 0.5
    assert accept_rate(VALUES, SAME, 0.25) == 1.0


def test_the_curve_rises_from_the_first_false_accept_to_all():
    outputs, targets = people()
    pairs = pairs_of(targets)
    false, true = rates(cosines(outputs, pairs), pairs.same)
    assert false[0] == pytest.approx(1 / (~pairs.same).sum())
    assert false[-1] == 1.0
    assert (np.diff(false) > 0).all()
    assert (np.diff(true) >= 0).all()
    at = int(np.searchsorted(false, 0.02))
    assert true[at] == pytest.approx(accept_rate(cosines(outputs, pairs), pairs.same, false[at]), abs=0.02)


def test_what_is_wrong_is_told_with_how_far():
    np.testing.assert_allclose(wrong_by(VALUES, SAME, 0.4), [0, 0, 0.2, 0.1, 0, 0, 0], atol=1e-5)


def test_the_interval_is_wider_than_if_pairs_were_independent():
    outputs, targets = people()
    pairs = pairs_of(targets)
    values = cosines(outputs, pairs)
    threshold = best_threshold(values, pairs.same)
    told = accuracy(values, pairs.same, threshold)
    low, high = accuracy_interval(outputs, targets, threshold)
    assert low < told < high
    independent = 2 * 1.96 * np.sqrt(told * (1 - told) / len(values))
    assert high - low > independent
