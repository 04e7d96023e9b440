"""The commands of docs/devices.md, as they stand there. Needs `make emulator`."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phonefit.device_bench.report import Report
from tests.foreign_models import quantised_tflite, wide_model
from tests.unit.test_readme import shell_lines

pytest_plugins = ["tests.device.emulator_fixtures"]
pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]
PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
# These take ten minutes and more; that they are understood is tested with the README.
LONG = ("--sustained", "phonefit search")


def phonefit(*words, folder):
    return subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_commands_of_the_page_work(emulator_machine, tmp_path):
    model = quantised_tflite(tmp_path)
    for name in ("model.tflite", "other.tflite"):
        shutil.copy(model, tmp_path / name)
    lines = [
        line for line in shell_lines(PAGE) if line.startswith("phonefit") and not any(word in line for word in LONG)
    ]
    assert len(lines) >= 7
    for line in lines:
        done = phonefit(*shlex.split(line)[1:], folder=tmp_path)
        assert done.returncode == 0, (line, done.stderr)


def test_a_model_over_the_memory_limit_is_a_missed_budget_with_its_report(emulator_machine, tmp_path):
    model = wide_model(tmp_path, "executorch")
    done = phonefit(
        "bench",
        model.name,
        "--device",
        "emulator",
        "--memory-limit",
        "20MB",
        "--json",
        "--save",
        "r.json",
        folder=tmp_path,
    )
    assert done.returncode == 1
    assert f"{model.name}: out of memory: it needs more than the limit of 20MB on emulator" in done.stderr
    assert "Traceback" not in done.stderr
    report = Report.load(tmp_path / "r.json")
    assert report.out_of_memory and report.as_json() == json.loads(done.stdout)
    assert report.settings["memory_limit_bytes"] == 20_000_000
