"""The parts of the tensor-train sampler, each against what it must compute."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy.integrate import quad
from scipy.optimize import check_grad
from scipy.stats import norm

from phonefit.pipeline.search.samplers import TensorTrainSampler, surrogate
from phonefit.pipeline.search.samplers.axes import axes_of, distances, grid_around
from phonefit.pipeline.search.samplers.grid import LazyGridSampler
from phonefit.pipeline.search.samplers.tensor_cross import Seen, cross_sweep, maxvol, polish
from phonefit.pipeline.search.samplers.tensor_train import log_expected_improvement
from phonefit.pipeline.search.samplers.ttopt import next_point

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE = {
    "decay": FloatDistribution(0.0, 0.1, step=0.02),
    "epochs": IntDistribution(1, 8),
    "flip": CategoricalDistribution(("none", "horizontal", "both")),
    "hidden": CategoricalDistribution((0, 64, 128, 512)),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "wide": IntDistribution(1, 4096, log=True),
}


def test_axes_know_what_has_an_order():
    axes = {axis.name: axis for axis in axes_of(SPACE)}
    assert [axis.name for axis in axes.values() if axis.nominal] == ["flip"]
    assert [axis.name for axis in axes.values() if axis.levels is None] == ["learning_rate", "wide"]
    assert axes["hidden"].levels.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("decay", [0.0, 0.04, 0.1]),
        ("epochs", [1, 5, 8]),
        ("flip", ["none", "both"]),
        ("hidden", [0, 512]),
        ("learning_rate", [1e-4, 3e-3, 1e-1]),
        ("wide", [1, 17, 4096]),
    ],
)
def test_a_value_survives_its_coordinate(name, values):
    axis = next(axis for axis in axes_of(SPACE) if axis.name == name)
    for value in values:
        decoded = axis.decode(axis.encode(value))
        assert decoded == pytest.approx(value) if isinstance(value, float) else decoded == value
        assert isinstance(decoded, type(value))


def test_categories_without_order_are_all_equally_far():
    axes = axes_of({"flip": SPACE["flip"]})
    assert distances(axes, np.array([[0.0], [1.0], [2.0]]), np.array([[0.0]])).ravel().tolist() == [0, 1, 1]


def test_the_grid_holds_the_best_points():
    axes = axes_of(SPACE)
    incumbents = np.array([[0.2, 0, 1, 1 / 3, 0.123, 0.9], [0.4, 1, 0, 1, 0.5, 0.1]])
    for place, levels in enumerate(grid_around(axes, incumbents, 16, np.random.default_rng(0))):
        assert levels.tolist() == sorted(set(levels.tolist()))
        if axes[place].levels is None:
            assert set(incumbents[:, place]) <= set(levels.tolist())


def test_maxvol_finds_rows_that_no_swap_improves():
    matrix = np.random.default_rng(0).normal(size=(200, 4))
    rows = maxvol(matrix)
    assert len(set(rows.tolist())) == 4
    coefficients = matrix @ np.linalg.inv(matrix[rows])
    assert np.abs(coefficients).max() <= 1.06


def test_cross_finds_the_top_of_a_separable_tensor_and_computes_a_sliver_of_it():
    sizes = [12] * 6
    terms = [np.random.default_rng(axis).normal(size=12) for axis in range(6)]
    best = [int(term.argmax()) for term in terms]

    def values(indices):
        return sum(term[indices[:, axis]] for axis, term in enumerate(terms))

    seen, random = Seen(), np.random.default_rng(0)
    cross_sweep(values, sizes, random.integers(sizes, size=(3, 6)), 3, seen, random)
    polish(values, sizes, seen.best(2)[0], 6, seen)
    assert seen.best(1)[0][0].tolist() == best
    assert sum(len(points) for points in seen.points) < 12**6 / 500


def observations(count=40, seed=0):
    random = np.random.default_rng(seed)
    points = np.column_stack([random.integers(0, 8, count) / 7, random.integers(0, 3, count), random.random(count)])
    values = np.sin(5 * points[:, 0]) + (points[:, 1] == 1) * points[:, 2]
    kinds = (surrogate.AxisKind(False, True), surrogate.AxisKind(True, True), surrogate.AxisKind(False, False))
    return points, (values - values.mean()) / values.std(), kinds


def test_the_gradient_of_the_posterior_is_that_of_its_value():
    points, values, kinds = observations()
    pairs = surrogate._Pairs.of(points, kinds)
    random = np.random.default_rng(1)
    for _ in range(5):
        theta = surrogate.prior_mean(3) + random.normal(scale=0.5, size=9)
        error = check_grad(
            lambda x: surrogate._negative_log_posterior(x, pairs, values)[0],
            lambda x: surrogate._negative_log_posterior(x, pairs, values)[1],
            theta,
        )
        _, gradient = surrogate._negative_log_posterior(theta, pairs, values)
        assert error < 1e-4 * max(1.0, float(np.linalg.norm(gradient)))


def test_the_surrogate_predicts_what_it_has_not_seen():
    points, values, kinds = observations(90)
    theta = surrogate.fit(points[:60], values[:60], kinds, [surrogate.prior_mean(3)], steps=60)
    process = surrogate.condition(points[:60], values[:60], kinds, theta)
    mean, variance = process.at_points(points[60:])
    assert np.sqrt(np.mean((mean - values[60:]) ** 2)) < 0.15
    inside = np.abs(mean - values[60:]) <= 3 * np.sqrt(variance)
    assert inside.mean() > 0.9


def test_the_mean_on_a_grid_is_an_exact_sum_of_products():
    points, values, kinds = observations()
    process = surrogate.condition(points, values, kinds, surrogate.prior_mean(3))
    levels = [np.arange(8) / 7, np.arange(3.0), np.linspace(0, 1, 5)]
    grid = process.on_grid(levels)
    indices = np.stack(np.meshgrid(*[np.arange(len(each)) for each in levels], indexing="ij"), -1).reshape(-1, 3)
    mean, _ = grid.predict(indices)
    terms = [
        np.einsum("n,an,bn,cn->abc", scale * process.weights, *factors)
        for scale, factors in ((grid.product_scale, grid.product), (grid.gauss_scale, grid.gauss))
    ]
    np.testing.assert_allclose(mean, sum(terms).ravel(), atol=1e-9)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 2.0, 5.0])
def test_expected_improvement_is_the_integral(mean):
    expected, _ = quad(lambda x: max(-x, 0.0) * norm.pdf(x, mean, 0.7), -12, 0, epsabs=1e-14)
    found = log_expected_improvement(np.array([mean]), np.array([0.7]), 0.0)
    assert found[0] == pytest.approx(np.log(expected), abs=0.05)


def test_expected_improvement_falls_without_end_where_there_is_hardly_any():
    scores = log_expected_improvement(np.array([3.0, 5.9, 6.1, 20.0, 200.0]), np.ones(5), 0.0)
    assert (np.diff(scores) < 0).all() and np.isfinite(scores).all()


def studied(sampler, function, trials):
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask(SPACE)
        study.tell(trial, function(trial.params))
    return study


def loss(parameters):
    rate = np.log10(parameters["learning_rate"]) + 2.3
    interaction = 0.3 * (parameters["flip"] == "both") * (parameters["epochs"] - 3)
    return rate**2 + abs(parameters["epochs"] - 6) / 4 + interaction + 0.1 * (parameters["hidden"] != 128)


def test_it_finds_better_points_than_random_search_with_a_third_of_the_trials():
    ours = [studied(TensorTrainSampler(seed, SPACE), loss, 30).best_value for seed in range(3)]
    random = [studied(optuna.samplers.RandomSampler(seed), loss, 90).best_value for seed in range(3)]
    assert np.median(ours) < np.median(random)


def test_noise_does_not_stop_it():
    noise = np.random.default_rng(0)
    study = studied(TensorTrainSampler(0, SPACE), lambda parameters: loss(parameters) + noise.normal(scale=0.3), 60)
    best = min(loss(trial.params) for trial in study.trials[-10:])
    assert best < 0.3


def test_the_first_trial_is_the_middle():
    space = {"x": FloatDistribution(-1.0, 3.0), "n": IntDistribution(0, 10), "c": CategoricalDistribution(["a", "b"])}
    study = optuna.create_study(sampler=TensorTrainSampler(0, space))
    assert study.ask(space).params == {"x": 1.0, "n": 5, "c": "b"}


@pytest.mark.parametrize("told", [True, False])
def test_it_learns_where_trials_are_ended_for_missing_a_limit(told):
    """The loss falls towards x = 1, where no trial may go to its end."""
    space = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
    study = optuna.create_study(sampler=TensorTrainSampler(1, space))
    ended = 0
    for number in range(24):
        trial = study.ask(space)
        x = trial.params["x"]
        if told or x <= 0.5:
            trial.set_constraint("size", x - 0.5)
        if x > 0.5:
            ended += number >= 12
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, (1 - x) + (trial.params["y"] - 0.3) ** 2)
    assert (ended <= 2) is told


def test_no_point_of_a_small_space_is_tried_twice():
    space = {"a": IntDistribution(0, 3), "b": CategoricalDistribution(("x", "y", "z"))}
    study = optuna.create_study(sampler=TensorTrainSampler(0, space))
    points = []
    for _ in range(12):
        trial = study.ask(space)
        points.append(tuple(trial.params.values()))
        study.tell(trial, trial.params["a"])
    assert len(set(points)) == 12


def test_equal_values_everywhere_are_no_obstacle():
    assert len(studied(TensorTrainSampler(0, SPACE), lambda parameters: 1.0, 14).trials) == 14


def test_parameters_that_some_trials_lack_are_drawn_on_their_own():
    study = optuna.create_study(sampler=TensorTrainSampler(0))

    def conditional(trial):
        kind = trial.suggest_categorical("kind", ("a", "b"))
        rate = trial.suggest_float("rate", 0, 1)
        return rate + (trial.suggest_float("extra", 0, 1) if kind == "a" else 1.0)

    study.optimize(conditional, n_trials=25)
    assert study.best_value < 0.5  # which only those with the parameter reach


def test_trials_that_run_at_once_get_different_points():
    study = optuna.create_study(sampler=TensorTrainSampler(0, SPACE))
    for _ in range(4):
        batch = [study.ask(SPACE) for _ in range(6)]
        for trial in batch:
            study.tell(trial, loss(trial.params))
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 24


def test_the_grid_is_refined_when_it_has_been_tried():
    space = {"a": FloatDistribution(0.0, 1.0)}
    study = optuna.create_study(sampler=LazyGridSampler(0, space))
    values = []
    for _ in range(9):
        trial = study.ask(space)
        values.append(trial.params["a"])
        study.tell(trial, 0.0)
    assert sorted(values[:5]) == [0, 0.25, 0.5, 0.75, 1]
    assert sorted(values) == [place / 8 for place in range(9)]


def test_ttopt_goes_through_its_own_points_in_order():
    """Fed one point at a time it must ask for the same points as in one go."""
    from ttopt import TTOpt

    sizes, asked = [5, 6, 4], []

    def value(point):
        return float(sum((place - 2) ** 2 for place in point))

    def batch(indices):
        asked.extend(tuple(int(place) for place in row) for row in indices)
        return np.array([value(row) for row in indices])

    TTOpt(batch, d=3, n=sizes, evals=60, is_func=False, is_vect=True).optimize(rank=1, seed=4)
    known: dict = {}
    for expected in list(dict.fromkeys(asked))[:25]:
        point = next_point(sizes, known, rank=1, seed=4)
        assert point == expected
        known[point] = value(point)


def test_draws_of_the_parameters_are_as_wide_as_the_prior_where_nothing_is_known():
    points, values, kinds = observations(count=2)
    start = surrogate.prior_mean(3)
    found = np.array(surrogate.draws(points, values, kinds, start, 300, np.random.default_rng(0)))
    means, deviations = surrogate._prior(3)
    np.testing.assert_allclose(found.mean(axis=0)[:3], means[:3], atol=0.3)
    np.testing.assert_allclose(found.std(axis=0)[:3], deviations[:3], rtol=0.25)


def test_draws_of_the_parameters_are_as_probable_as_the_best_ones_nearly():
    points, values, kinds = observations(count=60)
    best = surrogate.fit(points, values, kinds, [surrogate.prior_mean(3)], steps=60)
    pairs = surrogate._Pairs.of(points, kinds)
    found = surrogate.draws(points, values, kinds, best, 5, np.random.default_rng(0))
    losses = [surrogate._negative_log_posterior(theta, pairs, values)[0] for theta in (best, *found)]
    prior = surrogate._negative_log_posterior(surrogate.prior_mean(3), pairs, values)[0]
    assert losses[0] < min(losses[1:]) and max(losses[1:]) < losses[0] + 20 < prior
    assert len({tuple(theta) for theta in found}) > 1
