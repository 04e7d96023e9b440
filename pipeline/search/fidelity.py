"""Short trainings first: which trials go on after a part of their fine-tuning.

Asynchronous successive halving (Li et al., MLSys 2020, arXiv 1810.05934), as a rule for stopping: a trial that reaches
a rung goes on when it is among the best 1/factor of those that have reached it so far. Nobody waits for others, so it
works with any number of workers, and each decision needs nothing but what the study holds.

The rungs are at shares of a trial's own epochs, 1/factor, 1/factor², …: the learning rate follows one cycle over all
epochs of a training, so only networks at the same place of the cycle compare, and the training up to a rung is the
beginning of the whole one. Where all trials have as many epochs, these are the rungs of the paper.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Costs = Sequence[float]
"""Figures at a rung, less is better; NaN: not known there."""


def rungs(epochs: int, factor: int, least: int) -> dict[int, int]:
    """Epoch -> rung, for the epochs after which a training of `epochs` is judged; rung k is at 1/factor^k of it.

    Args:
        least: no rung before so many epochs.
    """
    found, rung = {}, 1
    while (epoch := epochs // factor**rung) >= least:
        found[epoch] = rung
        rung += 1
    return found


def goes_on(own: Costs, rivals: Sequence[Costs], factor: int) -> bool:
    """Whether a trial is among the best 1/factor of its rung.

    Several figures are ranked by non-dominated sorting (Deb et al. 2002): the trial stays when fewer than that share
    are in fronts before its own, so nobody on the first front is stopped. A trial with an unknown figure is dominated
    by nobody. Before `factor` trials have reached the rung everyone goes on.

    Args:
        rivals: the other trials that have reached the rung, in any order.
    """
    everyone = np.array([own, *rivals], dtype=np.float64)
    if len(everyone) < factor:
        return True
    ranks = front_ranks(everyone)
    return int((ranks < ranks[0]).sum()) < len(everyone) // factor


def front_ranks(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the front of each row of float64 [n, figures], less is better: 0 for what no other row dominates."""
    no_worse: NDArray[np.bool_] = np.all(costs[:, None] <= costs[None], axis=2)
    dominates = no_worse & np.any(costs[:, None] < costs[None], axis=2)
    ranks = np.full(len(costs), -1, dtype=np.int64)
    for front in range(len(costs)):
        left = ranks < 0
        if not left.any():
            break
        ranks[left & ~dominates[left].any(axis=0)] = front
    return ranks
