"""Bayesian optimisation with a Gaussian process (Jones et al., 1998; Mockus, 1975), as Optuna has it."""

from typing import TYPE_CHECKING

from phonefit.pipeline.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

STARTUP_TRIALS = 8
"""Random trials before the first model, as for `tpe`."""


def make(seed: int, space: Space) -> "BaseSampler":
    """The point of largest expected improvement, or of hypervolume improvement; constraints as probabilities."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, deterministic_objective=False)
