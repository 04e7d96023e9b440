"""The workflows fit GitHub's schema, and every step of theirs that runs something is a make target that works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import helper, numpy_helper

from phonefit.pipeline.size.baseline import load_baseline
from phonefit.pipeline.size.limits import Limit
from phonefit.pipeline.size.sources import read_subjects
from tests.foreign_models import onnx_bytes

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GH_STAND_IN = """\
#!/bin/sh
echo "$*" >> "$GH_CALLS"
case "$1 $2" in "issue list") echo "$GH_OPEN_ISSUE";; esac
"""


def write_onnx(path: Path, hidden: int = 512) -> None:
    """A real model file: one matrix product."""
    weights = numpy_helper.from_array(np.ones((16, hidden), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = {"x": ("FLOAT", [1, 16])}, {"y": ("FLOAT", [1, hidden])}
    path.write_bytes(onnx_bytes([node], *shapes, [weights]))


def steps(path):
    content = yaml.safe_load(path.read_text())
    return [step for job in content["jobs"].values() for step in job["steps"]]


COMMANDS = sorted({step["run"] for path in WORKFLOWS for step in steps(path) if "run" in step})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_fit_the_schema(path):
    done = subprocess.run(
        [shutil.which("check-jsonschema", path=Path(sys.executable).parent), "--builtin-schema",
         "vendor.github-workflows", str(path)], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_step_is_a_known_action_or_one_make_target():
    known = {f"actions/{name}" for name in ("checkout", "setup-python", "cache", "upload-artifact")}
    for path in WORKFLOWS:
        for step in steps(path):
            assert ("uses" in step and step["uses"].split("@")[0] in known) or step["run"].split()[0] == "make"


def test_the_nightly_matrix_runs_each_recipe_of_the_baseline():
    content = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    recipes = content["jobs"]["sizes"]["strategy"]["matrix"]["recipe"]
    baseline = load_baseline(ROOT / ".ci/sizes.toml")
    assert sorted(recipes) == sorted(baseline.subjects)
    assert {entry.subject for entry in baseline.artifacts.values()} == set(recipes)
    assert all(isinstance(limit, Limit) for limit in baseline.limits)
    assert len(read_subjects([str(ROOT / recipe) for recipe in recipes])) == len(recipes)


@pytest.fixture
def desk(tmp_path):
    """A real file with its baseline, and gh as a stand-in that notes what it was asked."""
    write_onnx(tmp_path / "m.onnx")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH_STAND_IN)
    (tmp_path / "bin/gh").chmod(0o755)
    assert make(tmp_path, "size-bless", REASON="first").returncode == 0
    return tmp_path


def make(folder: Path, *targets: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "RECIPE": str(folder / "m.onnx"),
        "SIZES": str(folder / "sizes.toml"),
        "RUNS": str(folder / "runs"),
        "REPORTS": str(folder / "reports"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GH_CALLS": str(folder / "calls"),
        "VENV": str(Path(sys.executable).parents[1]),
        **variables,
    }
    command = ["make", "--assume-old", f"{environment['VENV']}/.installed", *targets]  # nothing is installed here
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_step_names_a_target_that_exists(command):
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_steps_of_the_size_jobs_run(desk):
    """In the order of the workflows: in order, then grown, then broken."""
    history = {"HISTORY": str(desk / "runs/h.jsonl"), "ARGS": "--record --since 90d"}
    assert make(desk, "size-check", **history).returncode == 0
    assert (desk / "summary.md").read_text() == (desk / "reports/sizes.md").read_text()
    assert make(desk, "size-history", HISTORY=history["HISTORY"], ARGS="--since 90d").returncode == 0
    assert (desk / "reports/sizes.html").is_file()
    assert make(desk, "size-comment", PULL_REQUEST="7").returncode == 0

    write_onnx(desk / "m.onnx", hidden=640)
    grown = make(desk, "size-check", **history)
    assert grown.returncode == 2  # make's own code for a failed command
    assert "Error 1" in grown.stderr
    assert "failed" in (desk / "reports/sizes.md").read_text()
    assert make(desk, "size-history", HISTORY=history["HISTORY"], ARGS="--since 90d").returncode == 2
    assert make(desk, "size-issue", ISSUE="nightly sizes").returncode == 0
    assert make(desk, "size-issue", ISSUE="nightly sizes", GH_OPEN_ISSUE="12").returncode == 0

    (desk / "m.onnx").write_bytes((desk / "m.onnx").read_bytes()[:100])
    assert "Error 3" in make(desk, "size-check").stderr
    report = desk / "reports/sizes.md"
    assert (desk / "calls").read_text().splitlines() == [
        f"pr comment 7 --edit-last --create-if-none --body-file {report}",
        'issue list --state open --search in:title "nightly sizes" --json number --jq .[0].number // empty',
        f"issue create --title nightly sizes --body-file {report}",
        'issue list --state open --search in:title "nightly sizes" --json number --jq .[0].number // empty',
        f"issue comment 12 --body-file {report}",
    ]


def test_an_issue_without_a_report_says_where_to_look(desk):
    assert make(desk, "size-issue").returncode == 0
    assert "the log of the job" in (desk / "reports/sizes.md").read_text()
