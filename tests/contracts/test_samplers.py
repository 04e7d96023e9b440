"""What every sampler must do. A new one is tested by being listed in SAMPLERS."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState

from phonefit.models.errors import UnknownNameError
from phonefit.pipeline.recipe_search import Range, SamplerName
from phonefit.pipeline.search.samplers import SAMPLERS, sampler
from phonefit.pipeline.search.space import Conditional, decode, suggest

ROOT = Path(__file__).parents[2]
SPACE = {
    "finetune.learning_rate": Range(low=1e-4, high=1e-1, log=True),
    "finetune.weight_decay": Range(low=0.0, high=0.1, step=0.02),
    "finetune.epochs": Range(low=1, high=8, integer=True),
    "finetune.flip": ("none", "horizontal", "both"),
    "convert.runtimes": (["executorch"], ["tflite"], ["onnx"]),
}

every_sampler = pytest.mark.parametrize("name", SAMPLERS)
ONE_OBJECTIVE = {"ttopt"}  # a recipe with more is refused, see recipe_search


def new_study(objectives=1, storage=None):
    directions = ["maximize", "minimize", "minimize"][:objectives]
    return optuna.create_study(
        directions=directions, storage=storage, study_name="contract", load_if_exists=storage is not None
    )


def go_on(study, name, trials, seed=0, constrained=False):
    """Ask and tell `trials` times as the search does: a new sampler for each trial. Returns the points."""
    tried = []
    for place in range(len(study.trials), len(study.trials) + trials):
        study.sampler = SAMPLERS[name](seed * 1000 + place, SPACE)
        trial = study.ask()
        values = suggest(trial, SPACE)
        tried.append(values)
        if constrained:
            trial.set_constraint("latency_p90_ms", values["finetune.epochs"] / 5 - 1)
            trial.set_constraint("file_size", 0.0)
        quality = -abs(values["finetune.epochs"] - 6) - abs(values["finetune.learning_rate"] - 0.01)
        study.tell(trial, [quality, values["finetune.epochs"], 1.0][: len(study.directions)])
    return tried


@every_sampler
def test_the_seed_decides(name):
    first, same, other = (go_on(new_study(), name, 15, seed) for seed in (0, 0, 1))
    assert first == same
    assert first != other


@every_sampler
def test_every_value_is_inside_the_space(name):
    for point in go_on(new_study(), name, 30):
        assert set(point) == set(SPACE)
        assert 1e-4 <= point["finetune.learning_rate"] <= 1e-1
        assert round(point["finetune.weight_decay"] / 0.02, 6).is_integer()
        assert point["finetune.epochs"] in range(1, 9)
        assert isinstance(point["finetune.epochs"], int)
        assert point["finetune.flip"] in SPACE["finetune.flip"]
        assert point["convert.runtimes"] in SPACE["convert.runtimes"]


@every_sampler
@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_constraints_and_several_objectives_are_taken(name, objectives):
    if name in ONE_OBJECTIVE:
        objectives = 1
    study = new_study(objectives)
    go_on(study, name, 20, constrained=True)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    best = [decode(trial.params, SPACE) for trial in study.best_trials]
    assert best
    assert all(point["finetune.epochs"] <= 5 for point in best)


@every_sampler
def test_running_and_failed_trials_are_no_obstacle(name):
    study = new_study(1 if name in ONE_OBJECTIVE else 2)
    go_on(study, name, 12)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.sampler = SAMPLERS[name](99, SPACE)
    running = suggest(study.ask(), SPACE)
    assert running not in go_on(study, name, 5)


@every_sampler
def test_another_process_goes_on_exactly_where_the_first_stopped(name, tmp_path):
    objectives = 1 if name in ONE_OBJECTIVE else 2
    whole = go_on(new_study(objectives), name, 14)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    first = go_on(new_study(objectives, storage), name, 10)
    code = (
        "import sys; from tests.contracts.test_samplers import go_on, new_study; "
        "print(go_on(new_study(int(sys.argv[3]), sys.argv[1]), sys.argv[2], 4))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, storage, name, str(objectives)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(whole[10:])
    assert first == whole[:10]


CONDITIONAL_SPACE = {
    "finetune.epochs": Range(low=1, high=8, integer=True),
    "compress": ([], [{"technique": "prune", "ratio": 0.2}], [{"technique": "quantise"}]),
    "compress.0.ratio": Conditional(Range(low=0.1, high=0.5), "compress", ([{"technique": "prune", "ratio": 0.2}],)),
}


@every_sampler
def test_an_axis_that_not_every_point_has_is_suggested_where_it_exists_and_only_there(name):
    study = new_study()
    seen = []
    for place in range(24):
        study.sampler = SAMPLERS[name](place, CONDITIONAL_SPACE)
        trial = study.ask()
        values = suggest(trial, CONDITIONAL_SPACE)
        assert ("compress.0.ratio" in values) == (values["compress"] == [{"technique": "prune", "ratio": 0.2}])
        assert 0.1 <= values.get("compress.0.ratio", 0.1) <= 0.5
        seen.append(values)
        study.tell(trial, values.get("compress.0.ratio", 0.0) - abs(values["finetune.epochs"] - 4))
    assert len({str(values["compress"]) for values in seen}) == 3
    assert len({values["compress.0.ratio"] for values in seen if "compress.0.ratio" in values}) > 1


def test_a_recipe_can_name_exactly_the_samplers_that_exist():
    assert set(get_args(SamplerName)) == set(SAMPLERS)


def test_an_unknown_sampler_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=", ".join(sorted(SAMPLERS))):
        sampler("tpee")


def test_tpe_does_better_than_random_on_a_smooth_function():
    """Median over seeds of the best value found; the margin is large, so the test is not about luck."""

    def best(name, seed):
        study = new_study()
        go_on(study, name, 60, seed)
        return study.best_value

    medians = {name: sorted(best(name, seed) for seed in range(5))[2] for name in ("random", "tpe")}
    assert medians["tpe"] > medians["random"]
