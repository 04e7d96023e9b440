"""The size gate through the command line, on what a tiny recipe really gives."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import pytest
import tomlkit
import yaml
from PIL import Image

from phonefit.models.artifact import SUFFIXES
from phonefit.pipeline.size.baseline import load_baseline, load_lock
from tests.foreign_models import small_model
from tests.tiny import SIZE, write_folder

pytestmark = pytest.mark.xdist_group("size_gate")  # its fixtures take long

ROOT = Path(__file__).parents[2]
NAMES = {f"tiny/{variant}{suffix}" for variant in ("original", "compressed") for suffix in SUFFIXES.values()}


def write_recipe(folder: Path, channels: int = 16, runtimes: tuple[str, ...] = tuple(SUFFIXES)) -> Path:
    recipe = {
        "name": "tiny",
        "model": {"factory": "tests.tiny:build", "arguments": {"channels": channels}},
        "data": {
            "source": "image_folder",
            "path": "pictures",
            "input": {"height": SIZE, "width": SIZE, "resize": "stretch"},
            "split": {"validation": 0.3, "test": 0.3},
        },
        "finetune": {"epochs": 1, "freeze_epochs": 0, "flip": "none"},
        "compress": [{"technique": "quantise", "calibration": {"samples": 16}}],
        "convert": {"runtimes": list(runtimes), "parity": {"samples": 4, "cosine": -1, "snr_db": -99, "agreement": 0}},
        "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def size(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from phonefit.pipeline.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "size", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def digests(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {item["name"]: item["anatomy"]["sha256"] for item in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def blessed(tmp_path_factory):
    """A folder with the recipe, its store, and its blessed baseline; tests that change them work on other files."""
    folder = tmp_path_factory.mktemp("gate")
    write_folder(folder / "pictures")
    write_recipe(folder)
    done = size(folder, "bless", "tiny.yaml", "--reason", "the first", "--with", "partitions", "--with", "delegated")
    assert done.returncode == 0, done.stderr
    return folder


def copied_baseline(blessed: Path, tmp_path: Path) -> Path:
    for name in ("sizes.toml", "sizes.lock.json", "sizes.history.jsonl"):
        (tmp_path / name).write_bytes((blessed / name).read_bytes())
    return tmp_path / "sizes.toml"


def test_bless_writes_every_artifact_with_sections_tools_and_reason(blessed):
    baseline = load_baseline(blessed / "sizes.toml")
    assert set(baseline.artifacts) == set(load_lock(blessed / "sizes.toml").artifacts) == NAMES
    assert baseline.subjects == ("tiny.yaml",)
    for name, entry in baseline.artifacts.items():
        assert sum(entry.sections.values()) == entry.bytes
        assert entry.reason == "the first"
        assert "torch" in entry.tools
        assert entry.checkpoint.startswith("quantise/" if "compressed" in name else "finetune/")
        assert entry.measures["partitions"] >= 0


def test_nothing_changed_is_in_order_and_reuses_the_store(blessed):
    done = size(blessed, "check", "--strict", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {result["name"]: result["status"] for result in report["results"]} == dict.fromkeys(NAMES, "ok")
    assert all(result["same_file"] for result in report["results"])
    assert "converting" not in done.stderr


def test_two_processes_in_two_folders_give_the_same_bytes(blessed, tmp_path):
    """All three converters, from the same recipe, pictures and versions."""
    write_folder(tmp_path / "pictures")
    write_recipe(tmp_path)
    other = size(tmp_path, "measure", "tiny.yaml", "--json")
    assert other.returncode == 0, other.stderr
    here, there = digests(size(blessed, "measure", "tiny.yaml", "--json")), digests(other)
    assert set(here) == NAMES
    for name in sorted(NAMES):
        if here[name] != there[name]:
            pytest.fail(f"{name}: {differing_bytes(blessed, tmp_path, here[name], there[name], Path(name).suffix)}")


def differing_bytes(one: Path, other: Path, first: str, second: str, suffix: str) -> str:
    """Where two files differ, by the copies in their stores."""
    contents = []
    for folder, digest in ((one, first), (other, second)):
        for path in folder.glob("runs/store/size/*/anatomy.json"):
            if json.loads(path.read_text())["sha256"] == digest:
                contents.append((path.with_name(f"file{suffix}")).read_bytes())
    old, new = contents
    places = [place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    around = slice(max(0, places[0] - 16), places[0] + 32) if places else slice(0, 0)
    return (
        f"{len(old)} and {len(new)} bytes, {len(places)} differ, first {places[:20]}: {old[around]!r} / {new[around]!r}"
    )


def test_a_wider_model_fails_and_the_printed_command_blesses_it(blessed, tmp_path):
    baseline = copied_baseline(blessed, tmp_path)
    recipe = write_recipe(tmp_path, channels=24)
    (tmp_path / "pictures").symlink_to(blessed / "pictures")
    runs = blessed / "runs"
    where = ("--runs", str(runs))
    done = size(
        tmp_path, "check", *where, "--markdown", "out/r.md", "--summary", "s.md", "--junit", "out/r.xml", "--record"
    )
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "out/r.md").read_text()
    assert text == (tmp_path / "s.md").read_text()
    assert "6 failed" in text.splitlines()[0]
    assert "<failure" in (tmp_path / "out/r.xml").read_text()

    explained = size(tmp_path, "why", "tiny/compressed.tflite", *where, "--json")
    assert explained.returncode == 0, explained.stderr
    changes = json.loads(explained.stdout)
    assert sum(change["bytes"] for change in changes["changes"]) == changes["new_bytes"] - changes["old_bytes"] > 0

    (command,) = re.findall(r"```sh\nphonefit size (.*)\n```", text)
    words = [word.strip('"') for word in re.findall(r'"[^"]+"|\S+', command)]
    accepted = size(tmp_path, *words)
    assert accepted.returncode == 0, accepted.stderr
    assert "fail" in accepted.stdout  # it shows what it accepts
    entries = load_baseline(baseline).artifacts
    assert {entry.reason for entry in entries.values()} == {"why this growth is right"}
    assert size(tmp_path, "check", *where, "--strict").returncode == 0
    shown = size(tmp_path, "history", "tiny/original.pte", "--since", "30d", "--plot", "trend.html", "--json")
    assert shown.returncode == 1  # grew by more than 5 %: blessed or not, it adds up
    assert [line["event"] for line in json.loads(shown.stdout)["lines"]] == ["bless", "check", "bless"]
    assert size(tmp_path, "history", "--plot", "trend.png").returncode == 0  # without a period it only shows
    with Image.open(tmp_path / "trend.png") as picture:
        assert picture.format == "PNG" and picture.width > 800
    refused = size(tmp_path, "history", "--plot", "trend.gif")
    assert refused.returncode == 2 and ".html, .png" in refused.stderr
    assert "original.pte" in (tmp_path / "trend.html").read_text()
    assert recipe.is_file()


def test_why_works_from_the_lock_when_the_blessed_file_is_gone(blessed, tmp_path):
    copied_baseline(blessed, tmp_path)
    (tmp_path / "runs").mkdir()
    write_folder(tmp_path / "pictures")
    write_recipe(tmp_path, channels=20, runtimes=("onnx",))
    done = size(tmp_path, "why", "tiny/original.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new_bytes"] > json.loads(done.stdout)["old_bytes"]
    (tmp_path / "sizes.lock.json").unlink()
    gone = size(tmp_path, "why", "tiny/original.onnx")
    assert gone.returncode == 2
    assert "sizes.lock.json" in gone.stderr


def test_changed_tools_come_first_and_are_told_from_a_changed_model(blessed, tmp_path):
    """The baseline is made to say that an older ExecuTorch gave 1,000 bytes less; the recipe changed as well."""
    baseline = copied_baseline(blessed, tmp_path)
    write_recipe(tmp_path, channels=24)
    (tmp_path / "pictures").symlink_to(blessed / "pictures")
    document = tomlkit.parse(baseline.read_text())
    entry = document["artifacts"]["tiny/original.pte"]
    real = int(entry["bytes"])
    entry["bytes"] = real - 1000
    entry["sections"]["graph"] -= 1000
    entry["sha256"] = "0" * 64
    entry["tools"]["executorch"] = "1.4.0"
    baseline.write_text(tomlkit.dumps(document))
    done = size(tmp_path, "check", "--runs", str(blessed / "runs"), "--markdown", "r.md", "--json")
    assert done.returncode == 1, done.stderr
    results = {result["name"]: result for result in json.loads(done.stdout)["results"]}
    result = results["tiny/original.pte"]
    assert result["tools"] == {"executorch": ["1.4.0", tomllib.loads(
        (blessed / "sizes.toml").read_text())["artifacts"]["tiny/original.pte"]["tools"]["executorch"]]}  # fmt: skip
    assert result["tool_effect"]["bytes"] == real  # so the tools did +1,000, the rest is the model's
    assert results["tiny/original.onnx"]["tools"] == {}
    assert (tmp_path / "r.md").read_text().splitlines()[2].startswith("> **The tools changed")
    assert re.search(r"the tools did \+1,000 bytes, the model \+[1-9]", (tmp_path / "r.md").read_text())


def test_without_the_blessed_checkpoint_the_report_says_that_it_cannot_tell(blessed, tmp_path):
    baseline = copied_baseline(blessed, tmp_path)
    write_recipe(tmp_path, channels=24)
    (tmp_path / "pictures").symlink_to(blessed / "pictures")
    text = baseline.read_text().replace('"finetune/', '"finetune/0')
    baseline.write_text(text.replace('onnx = "', 'onnx = "0.'))
    done = size(tmp_path, "check", "--runs", str(blessed / "runs"))
    assert done.returncode == 1
    assert "is not in the store" in done.stdout.replace("\n", " ")


def test_files_corrupt_and_missing_ones_and_budgets(blessed, tmp_path):
    (tmp_path / "app").mkdir()
    for suffix in SUFFIXES.values():
        source = next(blessed.glob(f"runs/store/convert/*/model{suffix}"))
        (tmp_path / f"app/m{suffix}").write_bytes(source.read_bytes())
    files = [f"app/m{suffix}" for suffix in SUFFIXES.values()]
    assert size(tmp_path, "bless", *files, "--reason", "first").returncode == 0
    assert size(tmp_path, "check", "--strict").returncode == 0

    content = (tmp_path / files[0]).read_bytes()
    (tmp_path / files[0]).write_bytes(content[: len(content) // 2])
    corrupt = size(tmp_path, "check", "--junit", "r.xml")
    assert corrupt.returncode == 3
    assert "app/m.pte" in corrupt.stdout
    assert "<error" in (tmp_path / "r.xml").read_text()
    refused = size(tmp_path, "bless", "--reason", "no")
    assert refused.returncode == 3
    assert "nothing was blessed" in refused.stderr
    assert load_baseline(tmp_path / "sizes.toml").artifacts[files[0]].bytes == len(content)

    (tmp_path / files[0]).unlink()
    missing = size(tmp_path, "check")
    assert missing.returncode == 2
    assert "app/m.pte" in missing.stderr
    (tmp_path / files[0]).write_bytes(content)

    path = tmp_path / "sizes.toml"
    path.write_text(
        path.read_text().replace("[artifacts", '[[limits]]\nmatch = "*.onnx"\nbudget = "1KB"\n\n[artifacts', 1)
    )
    over = size(tmp_path, "check")
    assert over.returncode == 1
    assert "budget of 1,000" in over.stdout.replace("\n", " ")
    lifted = size(tmp_path, "bless", "--reason", "more")
    assert lifted.returncode == 1
    assert "does not lift a budget" in lifted.stderr


def test_a_warning_exits_0_and_with_strict_4(blessed, tmp_path):
    source = next(blessed.glob("runs/store/convert/*/model.onnx"))
    (tmp_path / "m.onnx").write_bytes(source.read_bytes())
    assert size(tmp_path, "bless", "m.onnx", "--reason", "first").returncode == 0
    path = tmp_path / "sizes.toml"
    path.write_text(
        re.sub(r"^bytes = (\d+)", lambda m: f"bytes = {int(m[1]) - int(m[1]) // 100}", path.read_text(), flags=re.M)
    )
    assert size(tmp_path, "check").returncode == 0
    assert size(tmp_path, "check", "--strict").returncode == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check",), "no such file; make it with"),
        (("check", "x.yaml", "--baseline", "no.toml"), "no.toml"),
        (("measure", "x.tflite"), "x.tflite: no such file"),
        (("measure", "tests.yaml"), "tests.yaml"),
        (("bless", "--reason", " "), "--reason is empty"),
        (("bless", "--reason", "x"), "nothing to measure"),
        (("measure", "pyproject.toml", "--with", "latency"), "does not repeat exactly"),
        (("measure", "pyproject.toml", "--with", "instruction"), "did you mean 'instructions'"),
        (("bless",), "--reason"),
    ],
)
def test_wrong_use_exits_2_without_a_traceback(tmp_path, arguments, said):
    (tmp_path / "pyproject.toml").write_text("")
    done = size(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_latency_is_compared_in_turn_and_left_out_with_a_note_where_it_cannot_be(tmp_path):
    model = small_model(tmp_path, "onnx").rename(tmp_path / "m.onnx")
    assert size(tmp_path, "bless", "m.onnx", "--reason", "first").returncode == 0
    path = tmp_path / "sizes.toml"
    limits = '[[limits]]\nmeasure = "latency"\n\n[[limits]]\nwarn = []\nfail = []\n\n[artifacts'
    path.write_text(path.read_text().replace("[artifacts", limits, 1))
    changed = onnx.load(str(model))
    changed.producer_name = "someone else"
    onnx.save(changed, str(model))
    done = size(tmp_path, "check", "--json")
    (result,) = json.loads(done.stdout)["results"]
    (finding,) = [item for item in result["findings"] if item["measure"] == "latency"]
    assert finding["low"] <= finding["new"] <= finding["high"]
    assert done.returncode in (0, 1)  # whichever the clock says: no figure of time is asserted here

    shutil.rmtree(tmp_path / "runs")
    left_out = size(tmp_path, "check", "--json")
    assert left_out.returncode == 0, left_out.stderr
    (note,) = json.loads(left_out.stdout)["notes"]
    assert "m.onnx: latency is not gated: the blessed file is not in runs" in note
