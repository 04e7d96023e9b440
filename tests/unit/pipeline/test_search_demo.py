"""The arithmetic of benchmarks/search_demo.py: shares of the hypervolume, and what a replayed trial costs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from phonefit.pipeline.errors import TrialEndedError
from phonefit.pipeline.recipe_check import apply_overrides
from phonefit.pipeline.search import screening_architecture
from tests.unit.pipeline.test_several_devices import file_on, report

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from search_demo_lookup import EPOCHS, RECIPE, Entry, Screened, Stage
from search_demo_replay import Known, Lookup, Replay, Run, hypervolume_share, point_of
from search_demo_tables import seconds_to, share_at

RUN = Run("tpe", "none", None, 0, seconds=[10, 30, 60], training=[8, 20, 20], shares=[0.5, 0.5, 0.9], ended=[""] * 3)


class Checks:
    """Ends a trial after `epochs` of its fine-tuning."""

    def __init__(self, epochs=EPOCHS + 1):
        self.epochs = epochs

    def before_training(self, recipe, context, device):
        pass

    def after_epoch(self, qualities):
        if len(qualities) > self.epochs:
            raise TrialEndedError("promotion", "enough")

    def before_measuring(self, recipe, files):
        assert [file.name for file in files] == ["compressed onnx fp32"]


def replay_of(*points):
    """A search over points that share their fine-tuning of 18 s; the rest of each takes 5 s."""
    known = {}
    for number, point in enumerate(points):
        stages = (
            Stage("finetune", "f", 18.0),
            Stage("convert", f"c{number}", 4.0),
            Stage("measure", f"m{number}", 1.0),
        )
        entry = Entry(point, 0.8, 1e6 * (number + 1), 1e6, [0.5] * (EPOCHS + 1), stages)
        measured = report(instructions=entry.instructions)
        artifact, recipe = file_on(measured).artifact, apply_overrides(RECIPE, point)
        shaping, converting = [Stage("architecture", f"a{number}", 1.0)], [Stage("convert", f"r{number}", 4.0)]
        check = Screened(SimpleNamespace(exact=number == 0), (), shaping, converting)
        known[point_of(recipe)] = Known(entry, artifact, Path("m"), measured, check)
    lookup = Lookup(known)
    return Replay(lookup, lookup.losses(None)), [apply_overrides(RECIPE, point) for point in points]


def test_the_hypervolume_is_a_share_of_that_of_the_whole_space():
    every = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [1.0, 1.0]])
    # by hand, up to 1.1 in both: 1.1 x 0.1 + 0.6 x 0.5 + 0.1 x 0.5
    assert hypervolume_share(every[:1], every) == pytest.approx(0.11 / 0.46)
    assert hypervolume_share(every[:3], every) == pytest.approx(1.0)
    assert hypervolume_share(every[:0], every) == 0.0


def test_a_trial_pays_for_what_no_trial_before_it_left_in_the_store():
    state, (first, second) = replay_of({"compress": []}, {"compress": [{"technique": "quantise"}]})
    state.evaluate(first, Checks())
    assert (state.spent, state.trained) == (pytest.approx(23.0), pytest.approx(18.0))
    state.evaluate(second, Checks())
    assert state.spent == pytest.approx(28.0)


def test_an_ended_training_is_paid_up_to_there_and_leaves_nothing():
    state, (first, second) = replay_of({"compress": []}, {"compress": [{"technique": "quantise"}]})
    with pytest.raises(TrialEndedError):
        state.evaluate(first, Checks(epochs=3))
    assert state.spent == pytest.approx(3.0)
    state.evaluate(second, Checks())
    assert state.spent == pytest.approx(3.0 + 23.0)


class Looking(Checks):
    """Looks at the network before training, and with `convert` at its files."""

    def __init__(self, convert, inexact=True):
        super().__init__()
        self.convert, self.inexact = convert, inexact

    def before_training(self, recipe, context, device):
        if screening_architecture.untrained_network(recipe, context, self.inexact) and self.convert:
            screening_architecture.expected_files(None, recipe, context, device)


def test_a_check_before_training_is_paid_once_for_each_network():
    state, (first, second) = replay_of({"compress": []}, {"compress": [{"technique": "quantise"}]})
    state.evaluate(first, Looking(convert=False))
    assert state.spent == pytest.approx(1.0 + 23.0)
    state.evaluate(first, Looking(convert=True))
    assert state.spent == pytest.approx(1.0 + 23.0 + 4.0)
    state.evaluate(first, Looking(convert=True))
    assert state.spent == pytest.approx(1.0 + 23.0 + 4.0)
    state.evaluate(second, Looking(convert=True, inexact=False))  # its shape is not looked at
    assert state.spent == pytest.approx(1.0 + 23.0 + 4.0 + 5.0)


def test_what_misses_the_limit_adds_nothing():
    state, (first, _) = replay_of({"compress": []}, {"compress": [{"technique": "quantise"}]})
    state.evaluate(apply_overrides(first, {"budget.instructions": 500_000}), Checks())
    state.note("")
    assert (state.shares, state.seconds) == ([0.0], [pytest.approx(23.0)])


def test_seconds_and_shares_of_a_run():
    assert [share_at(RUN, second) for second in (5, 10, 59, 60)] == [0.0, 0.5, 0.5, 0.9]
    assert [seconds_to(RUN, share) for share in (0.5, 0.9, 0.95)] == [10, 60, np.inf]
    assert RUN.longer_training(10).seconds == [10 + 9 * 8, 30 + 9 * 20, 60 + 9 * 20]
