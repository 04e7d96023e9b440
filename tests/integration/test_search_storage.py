"""Where studies are kept: files and a real PostgreSQL. A killed process loses the trial in flight and nothing else."""

import json
import logging
import multiprocessing
import signal
import subprocess
import sys

import pytest

from phonefit.pipeline.errors import PhonefitError, RecipeError, StoreError
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.search.result import pareto_front
from phonefit.pipeline.search.storage import FilePlace, place_of
from phonefit.pipeline.search.study import search
from phonefit.pipeline.search.summary import read_result
from tests.integration.test_search_study import ROOT, make_recipe, objective, points

pytest_plugins = ["tests.postgres_server"]

KINDS = ["sqlite", "journal", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture
def recipe_in(request, tmp_path):
    """A recipe with its study in the storage of a kind; a name of its own, as the tests share one database."""

    def recipe(kind):
        storage = request.getfixturevalue("postgres") if kind == "postgres" else kind
        name = f"study-{tmp_path.name}"
        return apply_overrides(make_recipe(), {"search.storage": storage, "name": name, "search.sampler": "random"})

    return recipe


# A process that ends itself without a word when it reaches a line of the search for the third time.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
import optuna
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search import claims, trials
from phonefit.pipeline.search.study import search
from tests.integration.test_search_study import objective
runs, place, recipe = Path(sys.argv[1]), sys.argv[2], Recipe.model_validate_json(sys.stdin.read())
reached = []
def killing(function):
    def wrapped(*arguments, **named):
        reached.append(1)
        if len(reached) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return wrapped
evaluate = objective
if place == "choosing":  # its number is in the study, and its point only half
    claims.suggest = killing(claims.suggest)
elif place == "running":
    evaluate = killing(objective)
elif place == "written":  # the result of the trial is on disk, and the study does not know it yet
    optuna.Study.tell = killing(optuna.Study.tell)
else:
    trials.summarise = killing(trials.summarise)
search(recipe, runs=runs, evaluate=evaluate)
"""


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("sqlite", "choosing"),
        ("sqlite", "written"),
        ("journal", "running"),
        pytest.param("postgres", "choosing", marks=pytest.mark.postgres),
        pytest.param("postgres", "told", marks=pytest.mark.postgres),
    ],
)
def test_a_process_that_is_killed_anywhere_loses_at_most_its_trial(tmp_path, recipe_in, kind, place):
    recipe = recipe_in(kind)
    script = [sys.executable, "-c", KILLED_AT, str(tmp_path / "runs"), place]
    done = subprocess.run(script, cwd=ROOT, input=recipe.model_dump_json(), text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    before = read_result(recipe, tmp_path / "runs")
    finished = 3 if place == "told" else 2
    assert len(points(before)) == finished
    result = search(recipe, runs=tmp_path / "runs", evaluate=objective)
    assert result.trials[:finished] == before.trials[:finished]
    assert [trial.state for trial in result.trials].count("interrupted") == (place != "told")
    undisturbed = search(
        apply_overrides(recipe, {"search.storage": "sqlite"}), runs=tmp_path / "undisturbed", evaluate=objective
    )
    assert points(result) == points(undisturbed)
    assert front(result) == front(undisturbed)


def front(result):
    return [dict(trial.values) for trial in result.trials if trial.number in result.pareto]


WAITING = """
import sys
from pathlib import Path
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search.study import search
def evaluate(recipe):
    print("waits", flush=True)
    sys.stdin.read()
search(Recipe.model_validate_json(sys.stdin.readline()), runs=Path(sys.argv[1]), evaluate=evaluate)
"""


@pytest.mark.postgres
def test_machines_that_share_a_database_leave_each_other_their_trials_and_take_over_those_of_the_dead(
    tmp_path, recipe_in
):
    recipe = recipe_in("postgres")
    script = [sys.executable, "-c", WAITING, str(tmp_path / "other")]
    with subprocess.Popen(script, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdin.write(recipe.model_dump_json() + "\n")
        other.stdin.flush()
        assert other.stdout.readline() == "waits\n"
        during = search(recipe, runs=tmp_path / "here", evaluate=objective)
        other.send_signal(signal.SIGKILL)
    assert [trial.state for trial in during.trials] == ["running"] + ["complete"] * 7
    after = search(recipe, runs=tmp_path / "here", evaluate=objective)
    assert [trial.state for trial in after.trials] == ["interrupted"] + ["complete"] * 8
    assert after.trials[8].parameters == during.trials[0].parameters
    assert after.pareto == pareto_front(after.trials, recipe.search.objectives)


@pytest.mark.postgres
@pytest.mark.parametrize("end", [None, PhonefitError("no such picture")])
def test_a_trial_whose_lock_the_database_has_dropped_is_left_to_whoever_took_it_over(tmp_path, recipe_in, caplog, end):
    import psycopg

    recipe, calls = recipe_in("postgres"), []

    def loses_its_lock(varied):
        calls.append(varied)
        if len(calls) == 2:
            with psycopg.connect(recipe.search.storage) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            search(recipe, trials=2, runs=tmp_path / "other", evaluate=objective)
            if end is not None:
                raise end
        return objective(varied)

    with caplog.at_level(logging.WARNING):
        result = search(recipe, trials=3, runs=tmp_path / "here", evaluate=loses_its_lock)
    assert [trial.state for trial in result.trials] == ["complete", "interrupted", "complete", "complete"]
    assert result.trials[2].parameters == result.trials[1].parameters
    assert "trial 1 was taken for lost" in caplog.text


def run_search(recipe, runs):
    search(recipe, runs=runs, evaluate=objective)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_no_point_is_tried_twice_by_two_processes(tmp_path, recipe_in, kind):
    recipe = recipe_in(kind)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=run_search, args=(recipe, tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    result = read_result(recipe, tmp_path)
    assert len({json.dumps(point) for point in points(result)}) == len(points(result)) == 8


@pytest.mark.postgres
def test_a_database_that_is_not_there_or_refuses_is_a_clear_error(tmp_path, postgres):
    recipe = apply_overrides(make_recipe(), {"search.storage": f"{postgres}/nowhere"})
    with pytest.raises(StoreError, match=r"nowhere, study study: .*check that the server runs"):
        search(recipe, runs=tmp_path, evaluate=objective)
    recipe = apply_overrides(make_recipe(), {"search.storage": postgres.replace("phonefit@", "stranger@")})
    with pytest.raises(StoreError, match=r'role "stranger" does not exist'):
        search(recipe, runs=tmp_path, evaluate=objective)


@pytest.mark.parametrize("url", ["postgresql://me:secret@host/db", "postgresql://me@host/db?password=secret"])
def test_a_password_in_a_recipe_is_refused_and_not_repeated(url):
    with pytest.raises(RecipeError, match="PGPASSWORD") as caught:
        apply_overrides(make_recipe(), {"search.storage": url})
    assert "secret" not in str(caught.value)


def test_a_search_that_was_begun_in_another_file_is_not_begun_anew(tmp_path):
    search(make_recipe(), trials=1, runs=tmp_path, evaluate=objective)
    other = apply_overrides(make_recipe(), {"search.storage": "journal"})
    with pytest.raises(RecipeError, match=r"was begun in .*study\.db, not in .*study\.journal"):
        search(other, trials=2, runs=tmp_path, evaluate=objective)


def test_a_line_that_a_killed_process_wrote_half_is_no_damage(tmp_path):
    recipe = apply_overrides(make_recipe(), {"search.storage": "journal"})
    search(recipe, trials=2, runs=tmp_path, evaluate=objective)
    place = place_of(recipe, tmp_path / "study")
    assert isinstance(place, FilePlace)
    with (tmp_path / "study" / place.file).open("a") as file:
        file.write('{"op_code":4,"worker_id":"x')
    assert len(points(search(recipe, trials=4, runs=tmp_path, evaluate=objective))) == 4
