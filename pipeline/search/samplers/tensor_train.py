"""TensorTrainSampler: few, dear trials over mixed spaces. An Optuna sampler that needs numpy and scipy only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.linalg import LinAlgError
from scipy.special import erfcx, log_ndtr, logsumexp, ndtr
from scipy.stats import yeojohnson, yeojohnson_normmax
from scipy.stats.qmc import Sobol

from phonefit.pipeline.search.samplers.axes import Axis, Floats, axes_of, distances, grid_around, random_points
from phonefit.pipeline.search.samplers.base import WholeSpaceSampler
from phonefit.pipeline.search.samplers.history import History, history_of
from phonefit.pipeline.search.samplers.surrogate import (
    Surrogate,
    condition,
    draws,
    fit,
    kinds_of,
    prior_mean,
    unordered_start,
)
from phonefit.pipeline.search.samplers.tensor_cross import Indices, Seen, cross_sweep, polish
from phonefit.pipeline.search.space import Space, distributions

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_THETA = "tensor_train:theta"
_SEED = "tensor_train:seed"
_CANDIDATES_OF_START = 64
_COARSE_LEVELS = 16
_RANK = 3
_POLISHED = 4
_POLISH_ROUNDS = 5
_LARGEST_HISTORY = 400
_SAME = 1e-3
"""Points that differ by less, as a sum over the axes' unit intervals, teach nothing new."""
_REFIT_EVERY_TRIAL = 30
_REFIT_EVERY = 4
_REFIT_SHARE = 20
"""Of n trials the parameters of the kernel are fitted anew after n / 20 more, but at least 4."""
_FRESH_START_EVERY = 4
_LARGEST_FIT = 100
"""Of more trials so many, of evenly spaced rank, are what the parameters of the kernel are fitted to."""
_WIDE_SEARCH = 100
"""Up to so many trials the acquisition is also searched from random points."""
_DRAWS = 3
_SETTLED = 60
"""Up to so many trials several parameters of the kernel are averaged over."""


def make(seed: int, space: Space) -> BaseSampler:
    """A TensorTrainSampler over the whole space of a recipe."""
    return TensorTrainSampler(seed=seed, search_space=distributions(space))


class TensorTrainSampler(WholeSpaceSampler):
    """Bayesian optimisation with a tensor-train surrogate; its acquisition is maximised by tensor cross approximation.

    For each trial:

    1. Parameters become axes. Numbers with up to 64 values, and categories that are numbers in order, are exact levels
       with an order; other categories are levels without one; what is left is continuous.
    2. The first min(8, axes + 2) trials: the middle of all axes, as people choose ranges around what they believe in,
       then a scrambled Sobol sequence (Owen 1998): every level of every axis comes up equally often.
    3. Values are standardised and made more normal by a Yeo-Johnson transform (Biometrika 87, 2000). Failed trials are
       left out, pruned ones count with their last report, and with the constraints that they are known to miss. Of
       more than 400 trials, the best half and the latest.
    4. A Gaussian process with a sum of two product kernels is fitted by maximum a posteriori; see `surrogate`. On a
       grid its mean is an exact tensor train. Running trials take part with what is predicted for them (kriging
       believer, Ginsbourger et al. 2010). Under 60 trials three more draws of the kernel's parameters from their
       posterior take part (Snoek et al., NIPS 2012), by elliptical slice sampling (Murray et al., AISTATS 2010). Of
       more than 100 trials, 100 of evenly spaced rank are what the parameters are fitted to.
    5. The grid: all levels of finite axes; for continuous ones 16 dithered levels, and fine ones around the best two
       points.
    6. Log expected improvement (Ament et al., NeurIPS 2023) over the best predicted mean, its average over the draws,
       plus the logarithm of the probability that each constraint holds, is maximised over the grid: TT-cross sweeps
       (TTOpt, arXiv 2205.00293; see `tensor_cross`) from the best points and, up to 100 trials, from random ones, then
       coordinate search from the best of what was seen. A point that was tried already is not proposed again.
    7. Several objectives: each trial draws weights for an augmented Chebyshev norm (ParEGO, Knowles 2006).

    What brings the gain: the surrogate (product kernel, unordered component, transform of values) and, less, the exact
    grid. TT-cross as the maximiser needs no gradients and no continuous relaxation, but in ablations random candidates
    with the same coordinate search did as well. This is not TTOpt under another name: TTOpt applies cross approximation
    to the objective itself, which needs thousands of evaluations.

    Nothing is kept between trials but the fitted parameters of the kernel, and these are in the study: another process
    goes on exactly as this one would.

    Args:
        seed: the same seed and the same history give the same suggestion.
        search_space: all parameters; without it the first trials are random, until a parameter has been seen.
    """

    def __init__(self, seed: int = 0, search_space: Mapping[str, BaseDistribution] | None = None) -> None:
        super().__init__(seed, search_space or {})
        self._seen = IntersectionSearchSpace(include_pruned=True) if search_space is None else None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are chosen together: those with a choice."""
        space = self._space if self._seen is None else self._seen.calculate(study)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for all parameters of the search space."""
        if not search_space:
            return {}
        random = np.random.default_rng([self._seed, trial.number])
        axes = axes_of(search_space)
        history = history_of(study, trial, axes)
        if len(history.points) < first_trials(len(axes)):
            chosen = _spread(axes, trial.number, _first_seed(study, trial, self._seed))
            if len(history.known) and distances(axes, chosen[None], history.known).min() <= _SAME:
                chosen = _far_from(history.known, axes, random)
        else:
            chosen = _suggest(history, axes, study, trial, random)
        return {axis.name: axis.decode(coordinate) for axis, coordinate in zip(axes, chosen, strict=True)}


def first_trials(axes: int) -> int:
    """Number of trials before the first model."""
    return min(8, axes + 2)


def _first_seed(study: Study, trial: FrozenTrial, seed: int) -> int:
    """The seed of the study's first points, which must be one for all of them: it is kept in the study."""
    for earlier in study.get_trials(deepcopy=False):
        if _SEED in earlier.system_attrs:
            return int(earlier.system_attrs[_SEED])
    study._storage.set_trial_system_attr(trial._trial_id, _SEED, seed)
    return seed


def _spread(axes: Sequence[Axis], place: int, seed: int) -> Floats:
    """The middle, then points of a scrambled Sobol sequence: every level of every axis comes up equally often."""
    if place == 0:
        return np.array([axis.at_share(0.5) for axis in axes])
    uniform = Sobol(len(axes), rng=np.random.default_rng(seed)).random_base2(place.bit_length())[place]
    return np.array([axis.at_share(float(share)) for axis, share in zip(axes, uniform, strict=True)])


def _far_from(known: Floats, axes: Sequence[Axis], random: np.random.Generator) -> Floats:
    """Of random points the one farthest from all known ones (Mitchell's best candidate, SIGGRAPH 1991)."""
    candidates = random_points(axes, _CANDIDATES_OF_START, random)
    best: Floats = candidates[distances(axes, candidates, known).min(axis=1).argmax()]
    return best


@dataclass(frozen=True)
class _Target:
    """What a surrogate is fitted to: points float64 [n, axes], values float64 [n]."""

    points: Floats
    values: Floats


def _suggest(
    history: History, axes: Sequence[Axis], study: Study, trial: FrozenTrial, random: np.random.Generator
) -> Floats:
    losses = _one_loss(history.losses, random)
    if len(losses) > _LARGEST_HISTORY:
        best = np.argsort(losses, kind="stable")[: _LARGEST_HISTORY // 2]
        kept = np.union1d(best, np.arange(len(losses) - _LARGEST_HISTORY // 2, len(losses)))
        history = replace(
            history, points=history.points[kept], losses=history.losses[kept], constraints=history.constraints[kept]
        )
        losses = losses[kept]
    goal = _Target(history.points, _normal(losses))
    limits = [
        _Target(np.concatenate([history.points, points]), _signed_log(np.append(held, excesses)))
        for held, (points, excesses) in zip(history.constraints.T, history.missed, strict=True)
    ]
    try:
        surrogates = _fitted([goal, *limits], history, axes, study, trial)
        others = _drawn(surrogates[0], history, goal, random)
    except LinAlgError:  # observations that contradict each other beyond the largest noise
        return _far_from(history.known, axes, random)
    order = np.argsort(np.where(history.feasible(), losses, np.inf), kind="stable")
    elites = history.points[order[:_RANK]]
    grid = grid_around(axes, elites[:2], _COARSE_LEVELS, random)
    sizes = [len(levels) for levels in grid]
    on_grid = _acquisition([surrogates[0], *others], surrogates[1:], history, grid)
    seen = Seen()
    nearest = np.column_stack(
        [np.abs(levels[None] - elites[:, place, None]).argmin(axis=1) for place, levels in enumerate(grid)]
    )
    cross_sweep(on_grid, sizes, nearest, _RANK, seen, random)
    if len(losses) <= _WIDE_SEARCH:
        cross_sweep(on_grid, sizes, random.integers(sizes, size=(_RANK, len(axes))), _RANK, seen, random)
    polish(on_grid, sizes, _apart(seen.best(200)[0], _POLISHED), _POLISH_ROUNDS, seen)
    best = seen.best(1000)[0]
    points = np.column_stack([levels[best[:, place]] for place, levels in enumerate(grid)])
    new = distances(axes, points, history.known).min(axis=1) > _SAME
    chosen: Floats = points[new.argmax()] if new.any() else _far_from(history.known, axes, random)
    return chosen


def _one_loss(losses: Floats, random: np.random.Generator) -> Floats:
    """Several objectives as one: augmented Chebyshev norm of the scaled losses, with random weights."""
    if losses.shape[1] == 1:
        single: Floats = losses[:, 0]
        return single
    low, high = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - low) / np.where(high > low, high - low, 1.0)
    weighted = scaled * random.dirichlet(np.ones(losses.shape[1]))
    combined: Floats = weighted.max(axis=1) + 0.05 * weighted.sum(axis=1)
    return combined


def _normal(losses: Floats) -> Floats:
    """Standardised, and as normal as a Yeo-Johnson transform makes them."""
    if np.ptp(losses) == 0:
        return np.zeros_like(losses)
    centred = (losses - losses.mean()) / losses.std()
    power = float(np.clip(yeojohnson_normmax(centred, brack=(-1.0, 2.0)), -1.0, 2.0))
    changed = yeojohnson(centred, lmbda=power)
    standard: Floats = (changed - changed.mean()) / max(float(changed.std()), 1e-12)
    return standard


def _signed_log(values: Floats) -> Floats:
    """Violations on a scale where small ones count; the sign, which says whether the constraint holds, is kept."""
    typical = np.median(np.abs(values)) or 1.0
    scaled: Floats = np.sign(values) * np.log1p(np.abs(values) / typical)
    return scaled


def _fitted(
    targets: Sequence[_Target], history: History, axes: Sequence[Axis], study: Study, trial: FrozenTrial
) -> list[Surrogate]:
    """A surrogate for each target; running trials take part with what is predicted for them."""
    kinds, count = kinds_of(axes), len(axes)
    storage: BaseStorage = study._storage
    label = f"{_THETA}:{','.join(axis.name for axis in axes)}"
    known = _stored(study, trial, label, len(targets), count)
    trials = len(history.points)
    due = known is None or trials < _REFIT_EVERY_TRIAL or trial.number % max(_REFIT_EVERY, trials // _REFIT_SHARE) == 0
    surrogates, thetas = [], []
    for place, target in enumerate(targets):
        theta = prior_mean(count) if known is None else known[place]
        if due:
            fresh = known is None or trials >= _REFIT_EVERY_TRIAL or trial.number % _FRESH_START_EVERY == 0
            starts = [theta, unordered_start(count), prior_mean(count)] if fresh else [theta]
            some = _of_even_rank(target.values, _LARGEST_FIT)
            theta = fit(target.points[some], target.values[some], kinds, starts, steps=40 if known is None else 15)
        thetas.append(theta)
        surrogate = condition(target.points, target.values, kinds, theta)
        if len(history.running):
            believed, _ = surrogate.at_points(history.running)
            points = np.concatenate([target.points, history.running])
            surrogate = condition(points, np.concatenate([target.values, believed]), kinds, theta)
        surrogates.append(surrogate)
    if due:
        rounded = [[float(f"{value:.9g}") for value in theta] for theta in thetas]
        storage.set_trial_system_attr(trial._trial_id, label, rounded)
    return surrogates


def _of_even_rank(values: Floats, count: int) -> Indices:
    """Places of `count` values from lowest to highest, or of all of them."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argsort(values, kind="stable")[np.linspace(0, len(values) - 1, count).round().astype(np.intp)]


def _stored(study: Study, trial: FrozenTrial, label: str, targets: int, axes: int) -> list[Floats] | None:
    """The kernel parameters that an earlier trial found."""
    for earlier in reversed(study.get_trials(deepcopy=False)):
        found = earlier.system_attrs.get(label) if earlier.number < trial.number else None
        if found is not None and len(found) == targets and all(len(theta) == axes + 6 for theta in found):
            return [np.array(theta) for theta in found]
    return None


def _drawn(surrogate: Surrogate, history: History, goal: _Target, random: np.random.Generator) -> list[Surrogate]:
    """The same process with other parameters of the kernel that are as credible: few trials do not settle them."""
    if len(history.points) >= _SETTLED:
        return []
    thetas = draws(goal.points, goal.values, surrogate.kinds, surrogate.theta, _DRAWS, random)
    believed = surrogate.at_points(history.running)[0] if len(history.running) else np.empty(0)
    values = np.concatenate([goal.values, believed])
    return [condition(surrogate.points, values, surrogate.kinds, theta) for theta in thetas]


def _acquisition(
    objectives: Sequence[Surrogate], limits: Sequence[Surrogate], history: History, grid: Sequence[Floats]
) -> Callable[[Indices], Floats]:
    """Log expected improvement, its mean over the objective's surrogates, plus log probability of each constraint."""
    on_grid, limits_on_grid = ([each.on_grid(grid) for each in surrogates] for surrogates in (objectives, limits))
    feasible = history.points[history.feasible()]
    # the predicted mean at the best point, not its value: noise must not set a mark that nothing reaches
    references = [float(each.at_points(feasible)[0].min()) for each in objectives] if len(feasible) else []

    def values(indices: Indices) -> Floats:
        total = np.zeros(len(indices))
        improvements = []
        for surrogate, reference in zip(on_grid, references, strict=False):
            mean, variance = surrogate.predict(indices)
            improvements.append(log_expected_improvement(mean, np.sqrt(variance), reference))
        if improvements:
            total += logsumexp(improvements, axis=0)
        for limit in limits_on_grid:
            mean, variance = limit.predict(indices)
            total += log_ndtr(-mean / np.sqrt(variance))
        return total

    return values


def log_expected_improvement(mean: Floats, deviation: Floats, reference: float) -> Floats:
    """log E[max(reference - f, 0)] for f normal, exact also where the improvement is tiny."""
    score = (reference - mean) / deviation
    above = np.maximum(score, -1.0)
    plain = np.log(np.exp(-0.5 * above**2) / np.sqrt(2 * np.pi) + above * ndtr(above))
    # below, density and distribution nearly cancel: their quotient is computed as one; further down by its asymptote
    below = np.clip(score, -1e4, -1.0)
    quotient = np.log1p(below * np.sqrt(np.pi / 2) * erfcx(-below / np.sqrt(2)))
    quotient = np.where(score < -1e4, -2 * np.log(np.maximum(-score, 1.0)), quotient)
    tail = -0.5 * score**2 - 0.5 * np.log(2 * np.pi) + quotient
    total: Floats = np.where(score > -1, plain, tail) + np.log(deviation)
    return total


def _apart(points: Indices, count: int) -> Indices:
    """The first points that differ from each other in two axes at least."""
    chosen: list[Indices] = []
    for point in points:
        if all(int((point != other).sum()) >= min(2, len(point)) for other in chosen):
            chosen.append(point)
        if len(chosen) == count:
            break
    return np.array(chosen)
