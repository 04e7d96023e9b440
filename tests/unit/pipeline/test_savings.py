"""What ending trials early has saved, from what the others took."""

import pytest
from pydantic import ValidationError

from phonefit.pipeline.recipe_search import SearchConfig
from phonefit.pipeline.search.result import SearchResult, SearchTrial
from phonefit.pipeline.search.savings import check_sums, with_savings
from phonefit.pipeline.search.table import saving_note


def complete(number, **seconds):
    return SearchTrial(number=number, state="complete", parameters={}, stage_seconds=seconds, seconds_checking=2.0)


def ended(number, check, **avoided):
    return SearchTrial(number=number, state="ended", parameters={}, ended_by=check, reason="", avoided=avoided)


TRIALS = [
    complete(0, finetune=10.0, convert=4.0, measure=6.0),
    complete(1, finetune=30.0, convert=5.0, measure=6.0),
    complete(2, finetune=20.0, measure=9.0),
    ended(3, "promotion", finetune=3, convert=1, measure=1),
    ended(4, "before device", measure=1),
    ended(5, "promotion", finetune=1, prune=1),
]


def test_the_estimate_is_the_median_of_the_trials_that_did_it():
    trials = with_savings(TRIALS)
    assert [trial.seconds_avoided for trial in trials] == [None, None, None, 3 * 20 + 4.5 + 6, 6, 20]
    assert [(one.check, one.trials, one.seconds_avoided) for one in check_sums(trials)] == [
        ("promotion", (3, 5), 90.5),
        ("before device", (4,), 6.0),
    ]


def test_nothing_is_estimated_before_a_trial_has_finished():
    assert with_savings(TRIALS[3:]) == TRIALS[3:]


def test_the_note_says_what_was_saved_and_what_it_cost():
    result = SearchResult(
        name="r", sampler="tpe", objectives=("quality",), trials=tuple(with_savings(TRIALS)), pareto=()
    )
    assert saving_note(result) == (
        "3 trials were ended early: about 96 s avoided, estimated from the others; the checks took 6 s"
    )
    assert saving_note(result.model_copy(update={"trials": ()})) == ""


def test_promotion_needs_the_quality_as_an_objective():
    with pytest.raises(ValidationError, match="must be one of the objectives"):
        SearchConfig(objectives=("bytes",), screening={"promotion": {}})
    assert SearchConfig().screening.promotion is None
