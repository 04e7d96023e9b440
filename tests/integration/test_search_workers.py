"""Local worker processes: what one of them, or all of them, can suffer without harm to the study."""

import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from phonefit.pipeline.errors import ParityError
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe
from phonefit.pipeline.search import local
from phonefit.pipeline.search.result import SearchResult, pareto_front
from phonefit.pipeline.search.study import SearchStoppedError, search
from tests.integration.test_search_study import ROOT, make_recipe, objective, points


class CountingProgress:
    """Keeps the notes of the steps that were shown."""

    def __init__(self):
        self.notes = []

    @contextmanager
    def stage(self, title, total=None):
        yield lambda steps=1, note="": self.notes.extend([note] * steps)


def dies_once(recipe, folder):
    """The process that is the first to begin a trial after five have ended is killed in it."""
    if len(list((folder / "study" / "trials").glob("*.json"))) >= 5:
        try:
            (folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return objective(recipe)
        os.kill(os.getpid(), signal.SIGKILL)
    return objective(recipe)


def test_a_worker_that_is_killed_is_reported_and_only_its_trial_is_lost(tmp_path, caplog):
    recipe, progress = apply_overrides(make_recipe(), {"search.trials": 30}), CountingProgress()
    evaluate = partial(dies_once, folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        result = search(recipe, runs=tmp_path, evaluate=evaluate, workers=2, progress=progress)
    states = [trial.state for trial in result.trials]
    assert (states.count("complete"), states.count("interrupted")) == (30, 1)
    lost = result.trials[states.index("interrupted")]
    assert lost.parameters in points(result)
    (warning,) = caplog.messages
    assert re.search(rf"worker \d was killed by SIGKILL during trial {lost.number}, .* another one is started", warning)
    assert len(progress.notes) == 30
    assert result.pareto == pareto_front(result.trials, recipe.search.objectives)
    logs = [local.log_of(tmp_path / "study", number).read_text() for number in (1, 2)]
    assert sum(log.count(" done\n") for log in logs) == 30
    assert sum(log.count("==== worker") for log in logs) == 3


def fails(recipe):
    raise ParityError("tflite: cosine 0.5, limit 0.98")


def test_what_stops_a_worker_stops_the_search_with_the_same_exit_code(tmp_path):
    with pytest.raises(SearchStoppedError, match=r"failed in a row .*cosine 0\.5") as caught:
        search(make_recipe(), runs=tmp_path, evaluate=fails, workers=2)
    assert caught.value.exit_code == ParityError.exit_code
    result = SearchResult.load(tmp_path / "study" / "search.json")
    assert {trial.state for trial in result.trials} <= {"failed", "interrupted", "running"}


# Two workers that each wait in their first trial, and a parent that a signal ends.
WAITING = """
import signal, sys
from functools import partial
from pathlib import Path
from phonefit.pipeline.search.study import search
from tests.integration.test_search_study import make_recipe
from tests.integration.test_search_workers import waits
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with Ctrl-C ignored
search(make_recipe(), runs=Path(sys.argv[1]), evaluate=partial(waits, pipe=sys.argv[2]), workers=2)
"""


def waits(recipe, pipe):
    with Path(pipe).open("w", buffering=1) as file:
        file.write("waits\n")
        signal.pause()


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_search_and_their_points_come_again(tmp_path, ended_by):
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-c", WAITING, str(tmp_path), str(tmp_path / "pipe")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as parent:
        try:
            with (tmp_path / "pipe").open() as pipe:
                assert [pipe.readline(), pipe.readline()] == ["waits\n"] * 2
                parent.send_signal(ended_by)
                assert pipe.read() == ""  # neither worker is in its trial any more
            assert "KeyboardInterrupt" in parent.stderr.read() or ended_by == signal.SIGKILL
        finally:
            parent.kill()
    result = search(make_recipe(), runs=tmp_path, evaluate=objective)
    assert [trial.state for trial in result.trials] == ["interrupted"] * 2 + ["complete"] * 8
    lost, again = result.trials[:2], result.trials[2:4]  # in the order in which they were given back
    assert sorted(str(trial.parameters) for trial in lost) == sorted(str(trial.parameters) for trial in again)


def test_as_many_workers_as_trials_fit_on_the_cores(monkeypatch):
    monkeypatch.setattr(local, "usable_cores", lambda: 8)
    assert local.default_workers(load_recipe("demo", ["threads=3"])) == 2
    assert local.default_workers(load_recipe("demo", ["threads=16"])) == 1
