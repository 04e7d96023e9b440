"""Which points a search tries and learns from: conditional axes, points that cannot run, untrusted measurements."""

import io
from functools import partial

import optuna
import pytest
from rich.console import Console

from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.search.result import SearchTrial, pareto_front
from phonefit.pipeline.search.study import search
from phonefit.pipeline.search.table import search_table
from tests.integration.test_search_study import make_recipe, objective, points

PRUNE = {"technique": "prune", "ratio": 0.2}
TREE = {"compress.0.ratio": [0.1, 0.3, 0.5], "compress": [[], [PRUNE], [{"technique": "quantise"}]]}


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "gp", "nsga2", "tensor_train"])
def test_every_point_of_a_conditional_space_is_tried_once(tmp_path, sampler):
    recipe = apply_overrides(make_recipe(space=TREE), {"search.sampler": sampler})
    tried = []

    def noting(varied):
        tried.append([step.as_json().get("ratio", step.technique) for step in varied.compress])
        return objective(varied)

    result = search(recipe, trials=50, runs=tmp_path, evaluate=noting)
    assert sorted(tried, key=str) == [["quantise"], [0.1], [0.3], [0.5], []]
    assert "every one of the 5 points" in result.note
    assert [("compress.0.ratio" in point) for point in points(result)].count(True) == 3


def test_a_point_whose_values_exclude_each_other_is_refused_without_a_trial(tmp_path):
    space = {"convert.runtimes": [["executorch"], ["tflite"]], "compress.0.scheme": ["int8_static", "int8_weights"]}
    recipe = make_recipe(space=space, compress=[{"technique": "quantise"}])
    calls = []

    def counting(varied):
        calls.append((varied.convert.runtimes[0], varied.compress[0].scheme))
        return objective(varied)

    result = search(recipe, trials=50, runs=tmp_path, evaluate=counting)
    assert sorted(calls) == [("executorch", "int8_static"), ("tflite", "int8_static"), ("tflite", "int8_weights")]
    (refused,) = [trial for trial in result.trials if trial.state == "refused"]
    assert refused.parameters == {"convert.runtimes": ["executorch"], "compress.0.scheme": "int8_weights"}
    assert "executorch cannot run 'int8_weights'" in refused.reason
    assert result.note  # it ended because everything was tried


def test_points_of_untrusted_trials_are_shown_and_not_learned_from(tmp_path):
    result = search(make_recipe(), trials=4, runs=tmp_path, evaluate=partial(objective, trusted=False))
    assert [(trial.state, trial.trusted, trial.learned) for trial in result.trials] == [("complete", False, False)] * 4
    assert result.pareto  # a front all the same
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'study' / 'study.db'}")
    assert not stored.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(search_table(result))
    text = " ".join(console.export_text().split())
    assert "no measurement of the 4 trials could be trusted, so the sampler learned nothing" in text
    calls = []
    again = search(make_recipe(), trials=4, runs=tmp_path, evaluate=calls.append)
    assert again.trials == result.trials
    assert not calls  # they count


@pytest.mark.parametrize(
    ("changes", "learned"),
    [
        ({}, False),
        ({"search.untrusted": "learn"}, True),
        ({"search.objectives": ["quality", "bytes"]}, True),  # no figure that the doubt is about
        ({"search.objectives": ["quality", "bytes"], "budget.latency_p90_ms": 30}, False),
    ],
)
def test_a_doubt_counts_where_an_objective_or_a_limit_depends_on_it(tmp_path, changes, learned):
    recipe = apply_overrides(make_recipe(), changes)
    result = search(recipe, trials=2, runs=tmp_path, evaluate=partial(objective, trusted=False))
    assert [trial.learned for trial in result.trials] == [learned] * 2
    assert not any(trial.trusted for trial in result.trials)


def test_an_untrusted_trial_takes_no_trusted_one_off_the_front():
    def trial(number, quality, latency, learned=True):
        values = {"quality": quality, "latency_p90_ms": latency}
        return SearchTrial(number=number, state="complete", parameters={}, values=values, learned=learned)

    trials = [
        trial(0, 0.8, 5.0),
        trial(1, 0.7, 6.0),  # dominated by a trusted one
        trial(2, 0.9, 4.0, learned=False),  # seems to dominate all
        trial(3, 0.7, 5.5, learned=False),
    ]
    assert pareto_front(trials, ["quality", "latency_p90_ms"]) == (0, 2)


def test_a_region_that_is_never_trusted_does_not_hold_the_search(tmp_path):
    """What is not learned from would come again and again: while most of the latest were such, points are random."""

    def busy_with_few_epochs(recipe):
        return objective(recipe, trusted=recipe.finetune.epochs > 3)

    result = search(make_recipe(), trials=40, runs=tmp_path, evaluate=busy_with_few_epochs)
    later = [trial.learned for trial in result.trials if trial.state == "complete"][20:]
    runs_of_unlearned = "".join("1" if learned else "0" for learned in later).split("1")
    assert sum(later) >= 5
    assert max(map(len, runs_of_unlearned)) < 15


def test_an_interrupted_trial_of_a_conditional_space_is_tried_again(tmp_path):
    calls = []

    def interrupted_at_second(varied):
        calls.append(varied)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return objective(varied)

    with pytest.raises(KeyboardInterrupt):
        search(make_recipe(space=TREE), runs=tmp_path, evaluate=interrupted_at_second)
    result = search(make_recipe(space=TREE), trials=5, runs=tmp_path, evaluate=objective)
    assert [trial.state for trial in result.trials][:3] == ["complete", "interrupted", "complete"]
    assert result.trials[2].parameters == result.trials[1].parameters
    assert len(points(result)) == 5
