"""When the best that a trial can still be is not good enough."""

import math
from dataclasses import replace

import pytest

from phonefit.pipeline.budget import Figures
from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.search.result import SearchTrial
from phonefit.pipeline.search.screening_bounds import Bounds, lowered, missed_by, reason_to_end

OBJECTIVES = ("quality", "latency_p90_ms", "bytes")
NOTHING = Figures(0, 0, 0, 0, energy=0, instructions=0)


def file(name="file", quality=math.inf, **figures):
    return Bounds(name, replace(NOTHING, **figures), quality)


def rival(number=0, quality=0.9, latency=5.0, size=1000.0, excess=0.0, learned=True):
    return SearchTrial(
        number=number,
        state="complete",
        parameters={},
        values={"quality": quality, "latency_p90_ms": latency, "bytes": size},
        constraints={"file_size": excess},
        learned=learned,
    )


def reason(*files, budget=None, rivals=(), objectives=OBJECTIVES):
    return reason_to_end(files, objectives, budget or BudgetConfig(), rivals)


def test_a_limit_that_is_missed_at_best_ends_a_trial():
    budget = BudgetConfig(file_size=1000, quality_drop=0.02)
    assert reason(file(bytes=1000), budget=budget) is None
    assert reason(file(bytes=1500), budget=budget) == (
        "file: at best file_size: 0.00 MB, limit 0.00 MB, missed by 50 %"
    )
    assert "quality_drop: 3.00 points" in reason(file(bytes=10, quality_drop=0.03), budget=budget)


def test_one_file_that_could_fit_keeps_the_trial():
    budget = BudgetConfig(file_size=1000)
    assert reason(file("a", bytes=1500), file("b", bytes=900), budget=budget) is None
    assert reason(file("a", bytes=1500), file("b", bytes=1200), budget=budget).count("file_size") == 2
    assert missed_by([file("a", bytes=1500), file("b", bytes=1200)], budget) == pytest.approx({"file_size": 0.2})
    assert reason() is None  # nothing is known


def test_a_trial_is_dominated_only_where_the_best_of_what_is_unknown_would_not_help():
    known = file(quality=0.8, bytes=2000)
    assert reason(known, rivals=[rival()]) is None  # it could be faster than anything
    assert reason(known.at_least(4.9), rivals=[rival()]) is None
    assert reason(known.at_least(5.1), rivals=[rival(7)]) == "file: at best dominated by trial 7"
    assert reason(file(bytes=2000).at_least(9), rivals=[rival()]) is None  # its quality is not known
    assert reason(file(bytes=2000).at_least(9), rivals=[rival()], objectives=OBJECTIVES[1:]) is not None


def test_equal_figures_do_not_dominate():
    assert reason(file(quality=0.9, bytes=1000).at_least(5.0), rivals=[rival()]) is None


@pytest.mark.parametrize("changes", [{"excess": 0.1}, {"learned": False}])
def test_what_misses_the_budget_or_cannot_be_trusted_dominates_nobody(changes):
    assert reason(file(quality=0.5, bytes=9000).at_least(50), rivals=[rival(**changes)]) is None


def test_figures_with_a_slack_are_held_against_a_limit_that_much_lower():
    budget = BudgetConfig(file_size=1000, latency_p90_ms=10)
    counted = Figures(1005, 0, 10.05, 0, energy=5, instructions=7)
    assert reason(Bounds("file", lowered(counted, 0.01), math.inf), budget=budget) is None
    assert reason(Bounds("file", counted, math.inf), budget=budget) is not None
    assert lowered(replace(counted, energy=None), 0.01).energy is None
