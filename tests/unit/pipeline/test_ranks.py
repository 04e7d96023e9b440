import itertools

import numpy as np
import pytest

from phonefit.pipeline.compress.ranks import Option, allocate
from phonefit.pipeline.compress.vbmf import vbmf_rank


def noisy(rows, columns, rank, noise, strength=1.0):
    random = np.random.default_rng(rows + columns + rank)
    signal = random.normal(size=(rows, rank)) @ random.normal(size=(rank, columns))
    matrix = strength * signal + noise * random.normal(size=(rows, columns))
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "noise"),
    [(64, 576, 5, 0.1), (64, 64, 8, 0.5), (256, 2304, 40, 0.3), (100, 20, 3, 0.01), (20, 20, 1, 0.1), (64, 48, 3, 0)],
)
def test_vbmf_finds_the_rank_below_the_noise(rows, columns, rank, noise):
    values = noisy(rows, columns, rank, noise)
    assert vbmf_rank(values, (rows, columns)) == vbmf_rank(values[::-1] * 1000, (columns, rows)) == rank


@pytest.mark.parametrize("shape", [(32, 32), (64, 576), (512, 512)])
def test_vbmf_finds_nothing_in_noise_and_in_nothing(shape):
    assert vbmf_rank(noisy(*shape, 0, 1.0), shape) == 0
    assert vbmf_rank(np.zeros(min(shape)), shape) == 0


def test_vbmf_drops_a_component_that_drowns():
    """The threshold at equal sides is 4.91 x columns x variance: theorem 2 with tau = 2.5129."""
    size = 200
    values = np.linalg.svd(np.random.default_rng(0).normal(size=(size, size)), compute_uv=False)
    for factor, rank in ((1.1, 1), (0.9, 0)):
        values[0] = factor * np.sqrt(4.91 * size)
        assert vbmf_rank(values, (size, size)) == rank


def test_vbmf_wants_all_singular_values():
    with pytest.raises(ValueError, match="has 20 singular values, got 19"):
        vbmf_rank(np.ones(19), (20, 30))


def random_options(seed):
    random = np.random.default_rng(seed)
    options = {}
    for layer in "abcd":
        costs = np.sort(random.integers(5, 100, size=5))[::-1]
        losses = np.sort(random.uniform(0, 1, size=5))
        losses[0] = 0
        options[layer] = [Option(int(cost), float(loss)) for cost, loss in zip(costs, losses, strict=True)]
    return options


@pytest.mark.parametrize("seed", range(20))
def test_an_allocation_fits_and_is_near_the_best(seed):
    options = random_options(seed)
    whole = sum(found[0].cost for found in options.values())
    for share in (0.9, 0.7, 0.5):
        limit = int(share * whole)
        fitting = [one for one in itertools.product(*options.values()) if sum(option.cost for option in one) <= limit]
        chosen = allocate(options, limit)
        if not fitting:
            assert chosen is None
            continue
        assert chosen is not None
        assert sum(option.cost for option in chosen.values()) <= limit
        best = min(sum(option.loss for option in one) for one in fitting)
        worst = max(sum(option.loss for option in one) for one in fitting)
        assert sum(option.loss for option in chosen.values()) <= best + 0.25 * (worst - best)


def test_an_allocation_changes_nothing_where_all_fits():
    options = random_options(0)
    chosen = allocate(options, sum(found[0].cost for found in options.values()))
    assert all(option.loss == 0 for option in chosen.values())
