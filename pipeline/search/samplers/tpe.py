"""Tree-structured Parzen estimator (Bergstra et al., NIPS 2011), multivariate and with constraints (Watanabe and
Hutter, IJCAI 2023), as Optuna has it.
"""

from typing import TYPE_CHECKING

from phonefit.pipeline.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

STARTUP_TRIALS = 8
"""Random trials before the first estimate. Fewer than Optuna's 10: a trial here costs minutes, so budgets are small."""


def make(seed: int, space: Space) -> "BaseSampler":
    """Points whose density among the good trials is high compared to the rest; running trials count as bad."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
