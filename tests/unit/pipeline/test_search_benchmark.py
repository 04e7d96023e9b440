"""The arithmetic of benchmarks/search.py: regrets, intervals, and the runs that are compared."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from search_methods import Run, best_so_far, run, space_of, ttopt_in_sequence
from search_problems import TURNED, Problem, best_known, turned
from search_rows import figures, keep, kept, median_interval, regret, summary

from phonefit.pipeline.search.samplers.ttopt import TTOptSampler

SMALL = Problem((4, 5, 3), (False, False, True), lambda indices: ((indices - [1, 3, 2]) ** 2).sum(1).astype(float))


def a_run(problem, trials, lowest, at, method="random", seed=0, version=0):
    return Run(problem, method, seed, version, trials, 0.5, lowest, at)


def test_the_best_so_far_is_the_least_true_loss_and_nothing_until_a_limit_is_kept():
    losses = np.array([np.nan, 3, np.nan, 5, 2])
    np.testing.assert_equal(best_so_far(losses, losses), [np.nan, 3, 3, 3, 2])


def test_with_noise_it_is_the_true_loss_of_what_looked_best():
    assert best_so_far(np.array([3.0, 5, 1, 2]), np.array([2.5, 1, 1.5, 0.5])).tolist() == [3, 5, 5, 2]


def test_a_regret_is_0_at_the_best_and_1000_at_a_typical_point_and_where_nothing_was_found():
    found = [regret(loss, best=2.0, typical=12.0) for loss in (None, 12.0, 7.0, 2.0)]
    assert found == [1000, 1000, 500, 0]


def test_of_the_runs_on_disk_the_longest_of_the_present_version_counts(tmp_path):
    path = tmp_path / "deep" / "functions.jsonl"
    short, long = a_run("a", 30, 1.5, {30: 1.5}), a_run("a", 50, 0.1 + 0.2, {30: 1.5, 50: None})
    for each in (
        short,
        long,
        short,
        a_run("a", 500, 0.0, {}, "tensor_train", version=-1),
        a_run("a", 9, None, {}, "gp"),
    ):
        keep(path, each)
    assert kept(path) == {("a", "random", 0): long, ("a", "gp", 0): a_run("a", 9, None, {}, "gp")}
    assert kept(tmp_path / "none.jsonl") == {}


def test_a_regret_is_to_the_best_that_any_run_has_found(monkeypatch):
    monkeypatch.setattr("search_rows._scale", lambda part, problem, seed: (1.0, 11.0))
    runs = {("a", "tpe", 0): a_run("a", 50, 2.0, {30: 5.0, 50: 2.0}), ("a", "gp", 0): a_run("a", 90, 0.5, {30: 11.0})}
    assert figures("functions", runs) == {
        ("a", "tpe", 0): {30: pytest.approx(4500 / 10.5), 50: pytest.approx(1500 / 10.5)},
        ("a", "gp", 0): {30: 1000},
    }


@pytest.mark.parametrize(("count", "place"), [(3, 1), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6)])
def test_the_interval_of_a_median_has_the_tabulated_places(count, place):
    """The k of the two-sided sign test at 5 % (k - 1 is its critical value); under 6 values there is none."""
    assert median_interval(list(np.random.default_rng(0).permutation(count) + 1)) == (place, count + 1 - place)


def test_ranks_compare_medians_and_leave_out_who_has_not_run_so_long():
    found = {("a", "random", seed): dict.fromkeys((30, 50), 9.0 + seed) for seed in range(3)}
    found |= {("a", "tensor_train", seed): dict.fromkeys((30, 50), 1.0 + seed) for seed in range(3)}
    found |= {("a", "gp", 0): {30: 5.0}}
    gp, random, ours = summary(found)[2:]
    assert gp.startswith("| gp | 2.00 | 5 [5, 5] n=1 | – | – |")
    assert random.startswith("| random | 3.00 | 10 [9, 11] n=3 | 2.00 | 10 [9, 11] n=3 |")
    assert ours.startswith("| tensor_train | 1.00 | 2 [1, 3] n=3 | 1.00 | 2 [1, 3] n=3 |")


def test_the_best_known_point_is_the_best_of_the_grid():
    assert best_known(SMALL) == 0
    large = Problem((40,) * 4, (False,) * 4, lambda indices: ((indices - 11) ** 2).sum(1).astype(float))
    assert best_known(large) == 0  # too large to be listed: by coordinate search


@pytest.mark.parametrize("name", TURNED)
def test_a_turned_function_has_its_best_value_inside_and_each_seed_another_place(name):
    lowest = []
    for seed in range(2):
        problem = turned(name, 6, seed)
        found = minimize(
            lambda point, loss=problem.loss: float(loss(point[None])[0]), np.full(6, 0.5), bounds=[(0, 1)] * 6
        )
        assert problem.best == 0 <= found.fun
        lowest.append(found)
    assert np.abs(lowest[0].x - lowest[1].x).max() > 0.01
    if name == "turned ellipsoid":  # the one with a single basin
        assert max(found.fun for found in lowest) < 1e-4


def test_ttopt_in_sequence_is_what_the_sampler_asks_for():
    space = space_of(SMALL, "ttopt")
    study = optuna.create_study(sampler=TTOptSampler(3, space))
    for _ in range(12):  # then it asks for nothing new, and both go on at random
        trial = study.ask(space)
        study.tell(trial, float(SMALL.loss(np.array([[int(trial.params[axis]) for axis in sorted(space)]]))[0]))
    told = [trial.value for trial in study.trials]
    assert ttopt_in_sequence(SMALL, 3, 12) == told


def test_a_run_has_a_figure_at_each_mark_and_is_the_same_again():
    first, again = (run("batches", "small", SMALL, "tpe", 0, 50) for _ in range(2))
    assert first.trials == 50
    assert list(first.at) == [30, 50]
    assert first.at[30] >= first.at[50] == first.lowest
    assert first == replace(again, cpu=first.cpu)
    assert run("batches", "small", SMALL, "tpe", 0, 30).at == {30: first.at[30]}  # more trials change nothing before


def test_a_limit_and_noise_leave_the_lowest_loss_that_counts():
    limited = replace(SMALL, cost=lambda indices: (4 - indices[:, 0]).astype(float))
    assert run("constrained", "small", limited, "random", 0, 500).lowest == 1  # at 2 or 3 on the first axis
    noisy = run("noise", "small", SMALL, "random", 0, 200)
    assert noisy.lowest == 0
    assert noisy.at[200] in SMALL.loss(np.array(list(np.ndindex(SMALL.sizes))))
