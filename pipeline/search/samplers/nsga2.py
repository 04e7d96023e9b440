"""NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 6, 2002), as Optuna has it."""

from typing import TYPE_CHECKING

from phonefit.pipeline.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

POPULATION = 16
"""Optuna's 50 would be a random search for the whole of a study whose trials cost minutes."""


def make(seed: int, space: Space) -> "BaseSampler":
    """Children of the best of the generation before."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=POPULATION)
