"""Trials on a real Ray cluster of several nodes, all on this machine; one of them is lost in the middle of a trial."""

import fcntl
import logging
import os
import pickle
import re
import shlex
import threading
from functools import partial

import optuna
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.scripts.scripts import start as ray_start

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.folders import held
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.ray_cluster import capacity, needs_of, options_of
from phonefit.pipeline.search.ray_task import RUNS, Snapshot
from phonefit.pipeline.search.result import SearchResult, pareto_front
from phonefit.pipeline.search.study import search
from tests.integration.test_main_path import phonefit, write_recipe
from tests.integration.test_search_study import ROOT, make_recipe, objective, points

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the node keeps its stages, as if it were another machine."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def cluster(kept):
    """A head that runs no trials, and a node with a phone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        cluster.add_node(num_cpus=0, include_dashboard=False)
        cluster.add_node(num_cpus=2, resources={"phone:A": 1, "host": 1}, env_vars={RUNS: str(kept)})
        yield cluster
        cluster.shutdown()


def waits_for_the_second(recipe, folder):
    """A trial by formula. On the node `second` it says that it has begun and never ends; elsewhere it waits."""
    if os.environ.get("PHONEFIT_NODE") == "second":
        with (folder / "pipe").open("w", buffering=1) as pipe:
            pipe.write("begun\n")
            threading.Event().wait()
    with held(folder / "gate"):
        return objective(recipe)


def test_a_node_that_is_lost_costs_the_trial_in_flight(cluster, tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe")
    second = cluster.add_node(num_cpus=1, resources={"phone:A": 1}, env_vars={"PHONEFIT_NODE": "second"})
    with (tmp_path / "gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)

        def remove_when_begun():
            with (tmp_path / "pipe").open() as pipe:
                pipe.readline()
            cluster.remove_node(second, allow_graceful=False)
            fcntl.flock(gate, fcntl.LOCK_UN)

        remover = threading.Thread(target=remove_when_begun, daemon=True)
        remover.start()
        recipe = apply_overrides(make_recipe(), {"bench.device": "adb:A"})
        evaluate = partial(waits_for_the_second, folder=tmp_path)
        with caplog.at_level(logging.WARNING):
            result = search(recipe, runs=tmp_path, evaluate=evaluate, executor="ray", ray_address=cluster.address)
        remover.join()
    states = [trial.state for trial in result.trials]
    assert (states.count("complete"), states.count("interrupted")) == (8, 1)
    lost = result.trials[states.index("interrupted")]
    assert lost.parameters in points(result)
    assert result.pareto == pareto_front(result.trials, result.objectives)
    assert any(f"trial {lost.number} was lost, and is tried again" in message for message in caplog.messages)


def test_a_trial_on_another_machine_is_like_one_here_and_its_stages_come_back(cluster, tmp_path, kept):
    whole = {"architecture": "off", "before_device": False}  # or the one that ends first may end the other
    wanted = {"trials": 2, "objectives": ["quality", "bytes"], "space": {"finetune.learning_rate": [0.01, 0.003]}}
    wanted["screening"] = whole
    path = write_recipe(tmp_path, search=wanted, compress=[], convert={"runtimes": ["onnx"]})
    recipe = load_recipe(path)
    # by a process of its own: the code of a factory is all that is loaded from its folder, and here that is much
    options = ["--executor", "ray", "--ray-address", cluster.address]
    done = phonefit("search", str(path), "--runs", str(tmp_path / "there"), *options)
    assert done.returncode == 0, done.stderr
    there = SearchResult.load(tmp_path / "there" / recipe.name / "search.json")
    assert [trial.reason for trial in there.trials] == [None, None]
    here = search(recipe, runs=tmp_path / "here")
    assert sorted((trial.parameters["finetune.learning_rate"], trial.values["quality"]) for trial in there.trials) == (
        sorted((trial.parameters["finetune.learning_rate"], trial.values["quality"]) for trial in here.trials)
    )
    assert all(there.trials[number].test_quality is not None for number in there.pareto)
    for number in (0, 1):
        trial = TrialResult.load(tmp_path / "there" / recipe.name / "trials" / f"{number}.json")
        for use in trial.stages:
            for runs in (kept, tmp_path / "there"):
                assert (runs / "store" / use.stage / use.key / "stage.json").is_file()


def test_a_phone_that_hangs_nowhere_is_refused_with_what_there_is(cluster, tmp_path):
    recipe = apply_overrides(make_recipe(), {"bench.device": "adb:B"})
    with pytest.raises(RecipeError, match=r"needs: CPU 1, phone:B 0\.5\. There are: .*phone:A 1"):
        search(recipe, runs=tmp_path, evaluate=objective, executor="ray", ray_address=cluster.address)


def test_the_checks_of_a_trial_elsewhere_see_the_others_and_their_notes_can_be_told():
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.tell(study.ask({"x": optuna.distributions.IntDistribution(0, 9)}), [1.0, 2.0])
    study.enqueue_trial({"x": 3})
    running = study.ask()
    study.enqueue_trial({"x": 5})
    copy = pickle.loads(pickle.dumps(Snapshot(study.get_trials(), study.directions))).open(running.number)
    states = [trial.state for trial in copy.study.get_trials()]
    assert states == [trial.state for trial in study.get_trials()]
    assert copy.number == running.number
    copy.set_user_attr("ended", "before device")
    assert copy.study.get_trials()[running.number].user_attrs == {"ended": "before device"}
    assert study.get_trials()[running.number].user_attrs == {}


def test_how_many_trials_run_at_the_same_time():
    needs = needs_of(apply_overrides(make_recipe(), {"bench.device": "adb:A", "threads": 4}))
    machines = [
        {"Alive": True, "Resources": {"CPU": 16.0, "phone:A": 1.0}},  # two share a phone
        {"Alive": True, "Resources": {"CPU": 4.0, "phone:A": 1.0}},
        {"Alive": True, "Resources": {"CPU": 64.0}},
        {"Alive": False, "Resources": {}},
    ]
    assert capacity(machines, needs) == 2 + 1
    on_gpu = needs_of(apply_overrides(make_recipe(), {"bench.device": "emulator:counts", "train_on": "cuda"}))
    assert capacity([{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}, *machines], on_gpu) == 2
    assert ray.remote(capacity).options(**options_of(on_gpu))  # Ray refuses its own resources among the others
    by_app = needs_of(apply_overrides(make_recipe(), {"bench.device": "app:A", "threads": 4}))
    assert by_app == needs


def test_the_commands_of_the_page_are_those_of_ray():
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\w+=0 ray start (.+)$", page, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        ray_start.make_context("ray start", shlex.split(line))


def test_an_address_without_a_cluster_is_a_clear_error(tmp_path):
    with pytest.raises(RecipeError, match=r"Ray at 127\.0\.0\.1:9 does not answer"):
        search(make_recipe(), runs=tmp_path, evaluate=objective, executor="ray", ray_address="127.0.0.1:9")
