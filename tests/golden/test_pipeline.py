"""Results and recipes that schema 1 wrote still load, from a real run of a tiny network."""

import json
from pathlib import Path

import pytest
import yaml

from phonefit.pipeline.convert.stage import ParityRecord
from phonefit.pipeline.explain.result import Explanation
from phonefit.pipeline.prepare import PicturesRecord
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.result import SearchResult
from phonefit.pipeline.store import StageInfo

GOLDEN = Path(__file__).parent
RECORDS = {
    "trial_1": TrialResult,
    "trial_1_devices": TrialResult,
    "search_1": SearchResult,
    "stage_1": StageInfo,
    "pictures_1": PicturesRecord,
    "parity_1": ParityRecord,
    "explanation_1": Explanation,
}


def holds(loaded: object, stored: object) -> bool:
    """Whether all that was stored is still there; newer fields may have come."""
    if isinstance(stored, dict):
        return isinstance(loaded, dict) and all(
            key in loaded and holds(loaded[key], value) for key, value in stored.items()
        )
    if isinstance(stored, list):
        return isinstance(loaded, list) and len(loaded) == len(stored) and all(map(holds, loaded, stored))
    return bool(loaded == stored)


@pytest.mark.parametrize("name", RECORDS)
def test_a_stored_record_loads_with_every_field(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert holds(RECORDS[name].load(path).as_json(), json.loads(path.read_text()))


def test_trial_1_still_says_what_it_said() -> None:
    trial = TrialResult.load(GOLDEN / "trial_1.json")
    assert [file.name for file in trial.files] == ["original onnx fp32", "compressed onnx int8"]
    assert trial.best == 1
    assert trial.files[1].report.median_milliseconds() > 0
    assert Recipe.model_validate(trial.recipe).name == "tiny"  # `phonefit search` and others read it back


def test_trial_1_on_several_devices_still_says_what_it_said() -> None:
    trial = TrialResult.load(GOLDEN / "trial_1_devices.json")
    (file,) = trial.files
    assert [report.device.name for report in file.reports] == ["cortex-a76, counted", "cortex-a55, counted"]
    assert [missed.device for missed in file.violations] == ["emulator:counts:core=cortex-a55"]
    assert trial.best is None
    recipe = Recipe.model_validate(trial.recipe)
    assert len(recipe.bench.devices) == 2


def test_search_1_still_says_what_it_said() -> None:
    result = SearchResult.load(GOLDEN / "search_1.json")
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert result.pareto == (0,)
    assert result.trials[0].values is not None and set(result.trials[0].values) == {"quality", "bytes"}


def test_recipe_1_loads_and_keeps_every_value(tmp_path: Path) -> None:
    stored = yaml.safe_load((GOLDEN / "recipe_1.yaml").read_text())
    recipe = load_recipe(str(GOLDEN / "recipe_1.yaml"), [f"data.path={tmp_path}"])
    stored["data"]["path"] = str(tmp_path)
    stored["budget"] |= {"ram": 64_000_000, "file_size": 9_000}  # sizes are read with their units
    assert holds(recipe.as_json(), stored)
