"""`phonefit calibrate` on the command line: what it refuses, before anything is counted."""

import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden"
STEADY, BUSY = GOLDEN / "report_1_steady.json", GOLDEN / "report_1_busy.json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "mine", STEADY, BUSY], ["report_1_steady.json", "x86_64", "at least 3", "--allow-untrusted"]),
        (["--name", "cortex-a76", STEADY], ["unfitted core", "my-cortex-a76"]),
        (["--name", "mine", STEADY, "--core", "cortex-a75"], ["unknown core 'cortex-a75'", "cortex-a76"]),
        (["--name", "mine", "missing.json"], ["missing.json: no such file"]),
        (["--name", "mine", STEADY, "--save", "mine.yaml"], ["--save mine.yaml", ".json"]),
    ],
)
def test_what_cannot_be_calibrated_exits_2_and_says_why(arguments, words, tmp_path):
    line = [sys.executable, "-m", "phonefit.pipeline.cli", "calibrate", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []
