"""The JSON between phonefit and the phone's app: what schema 1 wrote still loads."""

import json
from pathlib import Path

import pytest

from phonefit.device_bench.app_job import MODELS, AppJob, AppResult, AppRuntimes, result_path
from phonefit.models.errors import FileFormatError
from tests.golden.test_pipeline import holds

GOLDEN = Path(__file__).parent
RECORDS = {"app_job_1": AppJob, "app_result_1": AppResult, "app_runtimes_1": AppRuntimes}


@pytest.mark.parametrize("name", RECORDS)
def test_a_stored_record_loads_with_every_field(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert holds(RECORDS[name].load(path).as_json(), json.loads(path.read_text()))


def test_job_1_still_says_what_it_said() -> None:
    job = AppJob.load(GOLDEN / "app_job_1.json")
    assert (job.model, job.runtime, job.threads) == (f"{MODELS}/solar-int8.tflite", "tflite", 2)
    assert result_path(job.id) == "files/results/solar-int8-3f2a.json"
    assert [item.tolerance for item in job.expected] == [0.0, 1e-4]
    assert job.energy is not None and job.energy.wait_for_unplug_seconds == 120


def test_result_1_belongs_to_job_1() -> None:
    result, job = AppResult.load(GOLDEN / "app_result_1.json"), AppJob.load(GOLDEN / "app_job_1.json")
    assert result.job_id == job.id and result.status == "ok"
    assert result.memory is not None and result.memory.peak_bytes > result.memory.before_load_bytes
    assert {sample.phase for sample in result.gauge} == {"idle", "run"}


@pytest.mark.parametrize("name", RECORDS)
def test_a_newer_schema_is_refused(name: str, tmp_path: Path) -> None:
    content = json.loads((GOLDEN / f"{name}.json").read_text())
    path = tmp_path / "newer.json"
    path.write_text(json.dumps({**content, "schema_number": 2}))
    with pytest.raises(FileFormatError, match="schema 2"):
        RECORDS[name].load(path)
