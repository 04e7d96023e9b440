"""Random search: every point independently and uniformly (Bergstra and Bengio, JMLR 13, 2012)."""

from typing import TYPE_CHECKING

from phonefit.pipeline.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(seed: int, space: Space) -> "BaseSampler":
    """Uniform over the space, or over the logarithm of a `log` range."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)
