"""What samplers that choose all parameters at once have in common."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class WholeSpaceSampler(BaseSampler):
    """Chooses all parameters of its space together, in `sample_relative`; others are uniform.

    Args:
        seed: the same seed and the same history give the same suggestion.
        search_space: the parameters that are chosen together.
    """

    def __init__(self, seed: int, search_space: Mapping[str, BaseDistribution]) -> None:
        self._seed = seed
        self._space = dict(search_space)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are chosen together."""
        return dict(self._space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A uniform value, for a parameter that is not in the space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)
