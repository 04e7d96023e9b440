"""The check of the Android app, as `make android-check` runs it, and that it notices what it should."""

import subprocess
import sys

import pytest

from android_demo.check import kotlin, steps, vectors
from android_demo.check.__main__ import PHOTOS, RESOURCES
from android_demo.check.tools import REPOSITORY, CheckError

pytestmark = [pytest.mark.android, pytest.mark.xdist_group("android")]


@pytest.fixture(scope="module")
def said() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "android_demo.check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_whole_check_passes(said):
    assert "tests of core passed, on class files and on dex" in said
    assert "is a check, not an app to install" in said


def test_python_and_kotlin_agree_on_at_least_200_cases_and_10_photos(said):
    (line,) = [line for line in said.splitlines() if line.startswith("classification: ")]
    counts = {kind: int(count) for kind, count in (part.split(": ") for part in line.split(", "))}
    assert counts["preprocessing"] == vectors.GENERATED + 3 * len(vectors.read_photos(PHOTOS))
    assert len(vectors.read_photos(PHOTOS)) == 10
    assert set(counts) == {"preprocessing", *vectors.DECODERS}
    assert sum(counts.values()) - 3 * 10 >= 200


def test_the_committed_vectors_are_those_of_python_today(tmp_path):
    vectors.write_golden(tmp_path)
    for name in ("cases.json", "data.bin"):
        assert (tmp_path / name).read_bytes() == (RESOURCES / "vectors" / name).read_bytes()


def test_one_wrong_number_is_noticed(said, tmp_path):
    """Python says otherwise in one byte of one input, and in one box."""
    vectors.write_golden(tmp_path)
    data = bytearray((tmp_path / "data.bin").read_bytes())
    cases = (tmp_path / "cases.json").read_text()
    data[-1] ^= 1  # the last byte is a pixel of a stylised picture
    (tmp_path / "data.bin").write_bytes(data)
    (tmp_path / "cases.json").write_text(cases.replace('"score": 0.', '"score": 0.0', 1))
    jars = [
        next(iter(steps.BUILD.glob(f"{name}-*"))) / "classes.jar"
        for name in ("core-compiled", "tests-of-core-compiled")
    ]
    path = ":".join(str(jar) for jar in [*jars, kotlin.kotlin_jar("kotlin-stdlib")])
    line = [*kotlin.JAVA, "-cp", path, "org.phonefit.check.CheckVectorsKt", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("2 of 24 cases differ:")
    assert "score: number 0 is" in done.stdout and "pixels: byte" in done.stdout


def test_a_warning_of_the_compiler_fails(said, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "BUILD", tmp_path)
    source = tmp_path / "Unneeded.kt"
    source.write_text("fun length(text: String): Int? = text?.length\n")
    with pytest.raises(CheckError, match="unnecessary safe call"):
        kotlin.compiled("with a warning", [source], [], android=True)
