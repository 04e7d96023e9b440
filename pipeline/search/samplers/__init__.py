"""Samplers by name.

A factory takes a seed and the space and returns a sampler for ONE trial: the study makes a new one for each, seeded
from the recipe's seed and the number of trials so far. So a sampler keeps nothing between trials, everything it learns
from is in the study, and an interrupted search goes on as if it had not been.
"""

from collections.abc import Callable

from optuna.samplers import BaseSampler

from phonefit.models.errors import UnknownNameError
from phonefit.pipeline.search.samplers import gp, grid, nsga2, random, tensor_train, tpe, ttopt
from phonefit.pipeline.search.samplers.tensor_train import TensorTrainSampler
from phonefit.pipeline.search.space import Space

__all__ = ["SAMPLERS", "SamplerFactory", "TensorTrainSampler", "sampler"]

SamplerFactory = Callable[[int, Space], BaseSampler]

SAMPLERS: dict[str, SamplerFactory] = {
    "grid": grid.make,
    "random": random.make,
    "tpe": tpe.make,
    "gp": gp.make,
    "nsga2": nsga2.make,
    "tensor_train": tensor_train.make,
    "ttopt": ttopt.make,
}


def sampler(name: str) -> SamplerFactory:
    """The factory of that name.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return SAMPLERS[name]
