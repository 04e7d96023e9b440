"""One recipe on two emulated cores, as a person runs it. Needs `make emulator`."""

import json
from statistics import median

import pytest
import yaml

from phonefit.pipeline.result import TrialResult
from tests.integration.test_main_path import phonefit, write_recipe

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("several_devices")]  # its fixtures take long
A76, A55 = "emulator:counts:core=cortex-a76", "emulator:counts:core=cortex-a55"
RECIPE = {
    "compress": [],
    "finetune": {"epochs": 1, "learning_rate": 0.01, "freeze_epochs": 0},
    "convert": {"runtimes": ["onnx"], "original": False, "parity": {"cosine": 0.5, "snr_db": 0, "agreement": 0.5}},
    "bench": {"device": [A76, A55], "attempts": 1},
    "search": {
        "trials": 2,
        "objectives": ["quality", "latency_p90_ms", "instructions"],
        "space": {"compress": [[], [{"technique": "quantise", "calibration": {"samples": 24}}]]},
    },
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    recipe = write_recipe(folder, **RECIPE)
    done = phonefit("search", str(recipe), "--json", "--runs", str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return folder, recipe, json.loads(done.stdout)


def latencies(trial):
    return [report.p90_milliseconds() for report in trial.files[0].reports]


def test_each_file_has_a_report_of_each_core_and_the_slower_one_counts(searched):
    folder, _, result = searched
    for number in (0, 1):
        trial = TrialResult.load(folder / f"runs/tiny/trials/{number}.json")
        fast, slow = latencies(trial)
        assert trial.files[0].report.device.name != trial.files[0].further_reports[0].device.name
        values = result["trials"][number]["values"]
        assert values["latency_p90_ms"] == slow > fast
        counted = [median(report.figures["instructions"].samples) for report in trial.files[0].reports]
        assert counted == [values["instructions"]] * 2
    assert result["devices"] == f"worst of {A76}, {A55}"


def test_one_core_alone_takes_its_measurement_from_the_store_and_the_budget_is_held_against_it(searched):
    folder, recipe, result = searched
    number = next(trial["number"] for trial in result["trials"] if trial["parameters"]["compress"] == [])
    fast, slow = latencies(TrialResult.load(folder / f"runs/tiny/trials/{number}.json"))
    limit = f"budget.latency_p90_ms={(fast + slow) / 2}"
    places = ("--runs", str(folder / "runs"), "--json")
    alone = phonefit("run", str(recipe), f"bench.device={A76}", limit, "name=alone", *places)
    assert alone.returncode == 0, alone.stderr
    trial = TrialResult.model_validate(json.loads(alone.stdout)["trial"])
    assert all(stage.reused for stage in trial.stages)
    assert "further_reports" not in json.loads((folder / "runs/alone/trial.json").read_text())["files"][0]
    both = phonefit("run", str(recipe), limit, "name=both", *places)
    assert both.returncode == 1
    assert f"ms on {A55}, limit" in both.stderr


def test_what_reads_a_search_says_what_its_figures_are(searched):
    folder, recipe, _ = searched
    places = ("--runs", str(folder / "runs"))
    shown = phonefit("search", str(recipe), "--show", *places)
    assert shown.returncode == 0, shown.stderr
    assert f"latency_p90_ms, instructions: worst of {A76}" in " ".join(shown.stdout.split())
    other = phonefit("search", str(recipe), f"search.devices={{{A55}: 1}}", *places)
    assert other.returncode == 2 and "search.devices" in other.stderr
    best = phonefit("export-best", str(recipe), *places)
    assert best.returncode == 0, best.stderr
    assert yaml.safe_load(best.stdout)["bench"]["device"] == [A76, A55]
    assert f"# latency_p90_ms, instructions: worst of {A76}, {A55}" in best.stdout
    explained = phonefit("explain", str(recipe), *places)
    assert explained.returncode == 2 and "explain asks one device" in explained.stderr
