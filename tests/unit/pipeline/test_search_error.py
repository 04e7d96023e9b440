"""A quality that is an error, in a search: less of it is better, and it is shown as it is."""

import pytest

from phonefit.pipeline.recipe_auto import BudgetConfig
from phonefit.pipeline.result import FileResult, TrialResult
from phonefit.pipeline.search.outcome import best_of, outcome_of
from phonefit.pipeline.search.result import SearchTrial, pareto_front
from phonefit.pipeline.search.table import figure_text
from tests.unit.pipeline.test_budget import file_result

NAME = "mean_absolute_error"


def with_error(error: float) -> FileResult:
    return file_result(0.0, 1).model_copy(update={"quality": {NAME: error}})


def trial(*errors: float) -> TrialResult:
    return TrialResult(
        recipe={"name": "ages", "model": {"family": "resnet18"}, "data": {"source": "demo"}},
        recipe_digest="",
        quality_name=NAME,
        quality_better="lower",
        quality_unit="years",
        checkpoint_metrics={},
        files=tuple(with_error(error) for error in errors),
        best=None,
        stages=(),
    )


def test_the_file_of_the_smallest_error_speaks_for_a_trial():
    assert best_of(trial(4.5, 4.1, 6.0)).quality[NAME] == 4.1


def test_a_study_is_told_minus_the_error_and_tables_show_the_error():
    (value,) = outcome_of(trial(4.5), ("quality",), BudgetConfig()).values
    assert value == pytest.approx(-4.5)
    assert figure_text("quality", value) == "error 4.5"
    assert figure_text("quality", 0.845) == "84.50%"


def test_the_front_is_that_of_the_smallest_error():
    values = [{"quality": -4.5, "bytes": 9.0}, {"quality": -4.1, "bytes": 9.0}, {"quality": -6.0, "bytes": 1.0}]
    trials = [
        SearchTrial(number=number, state="complete", parameters={}, values=figures)
        for number, figures in enumerate(values)
    ]
    assert pareto_front(trials, ("quality", "bytes")) == (1, 2)
