"""Samplers by name.

A factory takes a seed and the space and returns a sampler for ONE trial: the study makes a new one for each, seeded
from the recipe's seed and the number of trials so far. So a sampler keeps nothing between trials, everything it learns
from is in the study, and an interrupted search goes on as if it had not been.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from phonefit.models.errors import UnknownNameError
from phonefit.pipeline.search.samplers import random, tpe
from phonefit.pipeline.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SamplerFactory = Callable[[int, Space], "BaseSampler"]

SAMPLERS: dict[str, SamplerFactory] = {
    "random": random.make,
    "tpe": tpe.make,
}


def sampler(name: str) -> SamplerFactory:
    """The factory of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return SAMPLERS[name]
