"""How many ranks each layer gets: by energy, by variational Bayes, or out of one budget for all layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phonefit.pipeline.compress.factors import Factorisation, Ranks
from phonefit.pipeline.compress.vbmf import vbmf_rank
from phonefit.pipeline.recipe_steps import FactorMethod

ROUND_TO = 8  # ranks that vector units like
LEVELS = 16  # ranks of a layer that a budget chooses from


@dataclass(frozen=True)
class Option:
    """One way to have a layer.

    Attributes:
        cost: what it uses of the budget.
        loss: what it adds to the loss.
        method: None: the layer as it is.
    """

    cost: int
    loss: float
    method: FactorMethod | None = None
    ranks: Ranks = ()


def energy_ranks(factorisation: Factorisation, energy: float) -> Ranks:
    """Fewest ranks that hold `energy` of the sum of each spectrum."""
    ranks = tuple(_rank(spectrum, energy) for spectrum in factorisation.spectra)
    return (max(ranks),) if factorisation.one_rank else factorisation.possible(ranks)


def vbmf_ranks(factorisation: Factorisation) -> Ranks | None:
    """Ranks of what is more than noise (Kim et al. 2016, arXiv 1511.06530, section 2.2); None where all is noise."""
    ranks = []
    for matrix, spectrum in zip(factorisation.unfoldings, factorisation.spectra, strict=True):
        values = torch.linalg.svdvals(matrix).numpy()
        ranks.append(min(vbmf_rank(values, (matrix.shape[0], matrix.shape[1])), len(spectrum)))
    if min(ranks) == 0:
        return None
    return (max(ranks),) if factorisation.one_rank else factorisation.possible(tuple(ranks))


def rounded(factorisation: Factorisation, ranks: Ranks) -> Ranks:
    """Ranks rounded up to what runs well; CP has no largest rank."""
    if factorisation.one_rank:
        return (math.ceil(ranks[0] / ROUND_TO) * ROUND_TO,)
    limits = [len(spectrum) for spectrum in factorisation.spectra]
    up = (min(math.ceil(rank / ROUND_TO) * ROUND_TO, limit) for rank, limit in zip(ranks, limits, strict=True))
    return factorisation.possible(tuple(up))


def levels(factorisation: Factorisation) -> list[Ranks]:
    """Ranks to choose from, few to many; the ranks of one level hold about the same energy of their spectra."""
    first = factorisation.spectra[0]
    size = len(first)
    step = ROUND_TO if size >= 4 * ROUND_TO else 1
    step *= math.ceil(size / step / LEVELS)
    shares = first.cumsum(0) / first.sum()
    found: list[Ranks] = []
    for rank in range(step, size + 1, step):
        ranks = energy_ranks(factorisation, float(shares[rank - 1]) - 1e-12)
        if step > 1:
            ranks = rounded(factorisation, ranks)
        if ranks not in found:
            found.append(ranks)
    return found


def allocate(options: Mapping[str, Sequence[Option]], limit: int) -> dict[str, Option] | None:
    """One option for each layer, of least summed loss, whose summed cost is at most `limit`; None where nothing fits.

    Greedy along the convex hull of each layer's options, the least loss for what is saved first (the Lagrangian
    relaxation of the knapsack; Shoham and Gersho 1988), then what is left of the budget is given back where it helps.
    """
    hulls = {name: _hull(choices) for name, choices in options.items()}
    place = dict.fromkeys(hulls, 0)
    spent = sum(hull[0].cost for hull in hulls.values())
    while spent > limit:
        steps = [
            (_slope(hulls[name][at], hulls[name][at + 1]), name)
            for name, at in place.items()
            if at + 1 < len(hulls[name])
        ]
        if not steps:
            return None
        _, name = min(steps)
        spent += hulls[name][place[name] + 1].cost - hulls[name][place[name]].cost
        place[name] += 1
    chosen = {name: hull[place[name]] for name, hull in hulls.items()}
    while True:
        gains = [
            (chosen[name].loss - option.loss, name, option)
            for name, choices in options.items()
            for option in choices
            if option.loss < chosen[name].loss and spent + option.cost - chosen[name].cost <= limit
        ]
        if not gains:
            return chosen
        _, name, option = max(gains, key=lambda gain: gain[0])
        spent += option.cost - chosen[name].cost
        chosen[name] = option


def _hull(choices: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of loss over cost, dearest first."""
    hull: list[Option] = []
    for option in sorted(choices, key=lambda one: (-one.cost, one.loss)):
        while hull and option.loss <= hull[-1].loss:  # cheaper and no worse
            hull.pop()
        if hull and option.cost == hull[-1].cost:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _slope(dear: Option, cheap: Option) -> float:
    """Loss for each unit of cost that is saved."""
    return (cheap.loss - dear.loss) / (dear.cost - cheap.cost)


def _rank(squared: Tensor, energy: float) -> int:
    """Fewest values that hold `energy` of the sum."""
    shares = squared.cumsum(0) / squared.sum()
    return min(int((shares < energy).sum()) + 1, len(squared))
