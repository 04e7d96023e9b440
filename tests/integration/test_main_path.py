"""The whole line on a tiny model with the real converters and runtimes, as a person runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phonefit.models.artifact import load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.result import TrialResult
from tests.tiny import SIZE, write_folder

pytestmark = pytest.mark.xdist_group("main_path")  # its fixtures take long
ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "tiny",
    "model": {"factory": "tests.tiny:build"},
    "data": {
        "source": "image_folder",
        "input": {"height": SIZE, "resize": "stretch"},
        "split": {"validation": 0.3, "test": 0.3},
    },
    "finetune": {"epochs": 2, "learning_rate": 0.01, "freeze_epochs": 0, "flip": "none"},
    "compress": [
        {"technique": "prune", "ratio": 0.2, "round_to": 4, "recover": {"epochs": 1}},
        {"technique": "quantise", "calibration": {"samples": 24}},
    ],
    "convert": {"parity": {"samples": 8, "cosine": 0.9, "snr_db": 5, "agreement": 0.7}},
    "bench": {"repeats": 5, "warmups": 1, "attempts": 1},
}


def write_recipe(folder: Path, **changes: object) -> Path:
    data = write_folder(folder / "pictures", per_class=20)
    recipe = RECIPE | {"data": RECIPE["data"] | {"path": str(data)}} | changes
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def phonefit(*arguments: str, cwd: Path = ROOT, program: str = "from phonefit.pipeline.cli import main; main()"):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=600
    )


def stable(trial: TrialResult) -> object:
    """Everything of a trial that is not a timing."""
    return [
        (file.name, file.artifact.sha256, file.checkpoint, file.quality, file.test_quality, file.parity)
        for file in trial.files
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One complete run over all three runtimes."""
    folder = tmp_path_factory.mktemp("main")
    recipe = write_recipe(folder)
    done = phonefit("run", str(recipe), "--runs", str(folder / "runs"))
    assert done.returncode == 0, done.stderr
    return folder, recipe, done


def test_run_gives_a_judged_and_measured_file_for_each_runtime(finished):
    folder, _, done = finished
    trial = TrialResult.load(folder / "runs/tiny/trial.json")
    names = {file.name for file in trial.files}
    assert names == {
        f"{variant} {runtime} {precision}"
        for variant, precision in (("original", "fp32"), ("compressed", "int8"))
        for runtime in ("executorch", "tflite", "onnx")
    }
    for file in trial.files:
        assert 0 <= file.quality["accuracy"] <= 1
        assert file.test_quality is not None
        assert len(file.report.figures["latency"].samples) == 5
        assert file.artifact.delegation is not None
        assert f"{file.artifact.bytes / 1e6:.2f}" in done.stdout
    assert trial.best is not None


def test_files_are_put_where_a_person_finds_them(finished):
    folder, _, _ = finished
    files = sorted(path.name for path in (folder / "runs/tiny/files").iterdir() if path.suffix != ".json")
    assert files == [f"{v}{s}" for v in ("compressed-int8", "original-fp32") for s in (".onnx", ".pte", ".tflite")]
    for name in files:
        artifact, path = load_artifact(folder / "runs/tiny/files" / name)
        assert path.name == artifact.file
        assert (artifact.preprocess.height, artifact.labels) == (SIZE, ("blue", "green", "red"))


def test_pictures_that_must_not_be_mirrored_are_not_mirrored_in_recovery_either(finished):
    folder, _, _ = finished
    (pruned,) = (folder / "runs/store/prune").iterdir()
    assert Checkpoint(pruned).info.lineage[-1].config["recover"]["flip"] == "none"


def test_second_run_takes_everything_from_the_store(finished):
    folder, recipe, _ = finished
    before = TrialResult.load(folder / "runs/tiny/trial.json")
    done = phonefit("run", str(recipe), "--runs", str(folder / "runs"), "--json")
    assert done.returncode == 0, done.stderr
    after = TrialResult.model_validate(json.loads(done.stdout)["trial"])
    assert all(stage.reused for stage in after.stages)
    assert stable(after) == stable(before)


def test_another_folder_gives_the_same_checkpoints(finished, tmp_path):
    folder, recipe, _ = finished
    done = phonefit("run", str(recipe), "convert.runtimes=[onnx]", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    ours = TrialResult.load(tmp_path / "runs/tiny/trial.json")
    theirs = TrialResult.load(folder / "runs/tiny/trial.json")
    assert {file.checkpoint for file in ours.files} == {file.checkpoint for file in theirs.files}


def test_convert_command_on_a_checkpoint_of_the_run(finished, tmp_path):
    folder, recipe, _ = finished
    checkpoint = next((folder / "runs/store/finetune").iterdir())
    assert Checkpoint(checkpoint).info.labels == ("blue", "green", "red")
    places = ("--out", str(tmp_path), "--runs", str(folder / "runs"))
    done = phonefit("convert", str(checkpoint), str(recipe), "--runtime", "onnx", *places)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".onnx", ".json"]


def test_nothing_fits_exits_1_and_says_by_how_much(finished):
    folder, recipe, _ = finished
    done = phonefit("run", str(recipe), "budget.file_size=1kB", "--json", "--runs", str(folder / "runs"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["trial"]["best"] is None  # the figures are there all the same
    assert "no file fits the budget" in done.stderr
    assert "missed by" in done.stderr
    assert "Traceback" not in done.stderr


def test_parity_miss_exits_1_and_names_format_figure_and_limit(finished):
    folder, recipe, _ = finished
    done = phonefit(
        "run", str(recipe), "convert.parity.cosine=1.0", "convert.parity.snr_db=200", "--runs", str(folder / "runs")
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "200" in done.stderr


KILL = """
import importlib, os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with Ctrl-C ignored
place, when, count = os.environ["KILL"].split()  # module:name:function, before or after, at which call
count = int(count)
module, *names, function = place.split(":")
owner = importlib.import_module(module)
for name in names:
    owner = getattr(owner, name)
real = getattr(owner, function)
def killing(*arguments, **keywords):
    global count
    count -= 1
    if count == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **keywords)
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, function, killing)
from phonefit.pipeline.cli import main
main()
"""
# How results come into the store, how records are written, how files are exported.
RENAME, WRITE, COPY, SWAP = (
    "pathlib:Path:rename",
    "pathlib:Path:replace",
    "shutil:copyfile",
    "phonefit.pipeline.folders:exchange",
)


def killed(arguments, monkeypatch, place, when, count):
    monkeypatch.setenv("KILL", f"{place} {when} {count}")
    return phonefit(*arguments, program=KILL).returncode == -signal.SIGKILL


def test_killed_at_several_points_the_same_command_goes_on(finished, tmp_path, monkeypatch):
    folder, recipe, _ = finished
    arguments = ("run", str(recipe), "convert.runtimes=[onnx]", "--runs", str(tmp_path / "runs"))
    # Each count is of what is left to do: data, training, compression, conversion, …
    for place, when, count in (
        (RENAME, "before", 1),
        (RENAME, "after", 2),
        (WRITE, "before", 2),
        (WRITE, "after", 3),
        (RENAME, "before", 3),
    ):
        assert killed(arguments, monkeypatch, place, when, count), (place, when, count)
    done = phonefit(*arguments)
    assert done.returncode == 0, done.stderr
    clean = {file.name: file for file in TrialResult.load(folder / "runs/tiny/trial.json").files}
    for file in TrialResult.load(tmp_path / "runs/tiny/trial.json").files:
        assert (file.artifact.sha256, file.quality) == (clean[file.name].artifact.sha256, clean[file.name].quality)


def test_killed_in_the_export_the_old_or_the_new_files_are_there_whole(finished, monkeypatch):
    folder, recipe, _ = finished
    own = folder / "runs/exported"

    def command(variants):
        return (
            "run",
            str(recipe),
            "name=exported",
            "convert.runtimes=[onnx]",
            variants,
            "--runs",
            str(folder / "runs"),
        )

    def exported():
        return [load_artifact(path)[1].name for path in sorted((own / "files").glob("*.onnx"))]

    old, new = ["compressed-int8.onnx"], ["compressed-int8.onnx", "original-fp32.onnx"]
    assert phonefit(*command("convert.original=false")).returncode == 0
    before = (own / "trial.json").read_bytes()
    for place, when, count, left in ((COPY, "after", 2, old), (SWAP, "before", 1, old), (SWAP, "after", 1, new)):
        assert killed(command("convert.original=true"), monkeypatch, place, when, count), (place, when)
        assert exported() == left
        assert (own / "trial.json").read_bytes() == before  # written last
    assert phonefit(*command("convert.original=true")).returncode == 0
    assert exported() == new
    assert len(TrialResult.load(own / "trial.json").files) == 2
    assert [path.name for path in own.iterdir() if path.name.startswith(".")] == []


def test_empty_and_single_class_folders_are_refused(tmp_path):
    recipe = write_recipe(tmp_path)
    empty, single = tmp_path / "empty", tmp_path / "single"
    empty.mkdir()
    write_folder(single)
    for name in ("red", "green"):
        for path in (single / name).iterdir():
            path.unlink()
        (single / name).rmdir()
    for folder in (empty, single):
        done = phonefit("run", str(recipe), f"data.path={folder}", "--runs", str(tmp_path / "runs"))
        assert done.returncode == 2, done.stderr
        assert folder.name in done.stderr
        assert "Traceback" not in done.stderr


def test_corrupt_picture_is_named_or_refused(finished, tmp_path):
    recipe = write_recipe(tmp_path)
    (tmp_path / "pictures/red/broken.png").write_bytes(b"\x89PNG not really")
    refused = phonefit("run", str(recipe), "data.unreadable=refuse", "--runs", str(tmp_path / "runs"))
    assert refused.returncode == 2
    assert "broken.png" in refused.stderr
    skipped = phonefit("run", str(recipe), "convert.runtimes=[onnx]", "compress=[]", "--runs", str(tmp_path / "runs"))
    assert skipped.returncode == 0, skipped.stderr
    assert "broken.png" in skipped.stdout


def test_weights_that_do_not_fit_and_pickles_are_refused(tmp_path):
    import torch

    recipe = write_recipe(tmp_path)
    foreign, pickled = tmp_path / "foreign.pt", tmp_path / "pickled.pt"
    torch.save({"some.weight": torch.zeros(3)}, foreign)
    torch.save(torch.nn.Linear(2, 2), pickled)  # a whole module: reading it would run code
    for path, words in ((foreign, "some.weight"), (pickled, "weights-only")):
        done = phonefit("run", str(recipe), f"model.weights={path}", "--runs", str(tmp_path / "runs"))
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_input_size_that_the_model_cannot_take_is_refused(tmp_path):
    recipe = write_recipe(tmp_path, model={"family": "vgg11"})
    done = phonefit("run", str(recipe), "data.input.height=16", "--runs", str(tmp_path / "runs"))
    assert done.returncode == 2, done.stderr
    assert "16" in done.stderr
    assert "at least" in done.stderr


NO_PERMISSION = """
import errno, os
real = os.mkdir
def mkdir(path, *arguments, **keywords):
    if "runs" in str(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return real(path, *arguments, **keywords)
os.mkdir = mkdir
from phonefit.pipeline.cli import main
main()
"""


def test_no_write_permission_is_explained(tmp_path):
    recipe = write_recipe(tmp_path)
    # Simulated, because root may write anywhere.
    done = phonefit("run", str(recipe), "--runs", str(tmp_path / "runs"), program=NO_PERMISSION)
    assert done.returncode == 2
    assert "no permission to write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["/proc/phonefit-runs", __file__])
def test_a_place_that_cannot_hold_runs_is_explained(tmp_path, place):
    done = phonefit("run", str(write_recipe(tmp_path)), "--runs", place)
    assert done.returncode == 2, done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr


FULL_DISK = """
import errno, os
real = os.fsync
def fsync(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
os.fsync = fsync
from phonefit.pipeline.cli import main
main()
"""


def test_full_disk_is_explained(tmp_path):
    recipe = write_recipe(tmp_path)
    done = phonefit("run", str(recipe), "--runs", str(tmp_path / "runs"), program=FULL_DISK)
    assert done.returncode == 2, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_exits_130_and_the_same_command_goes_on(tmp_path):
    recipe = write_recipe(tmp_path)
    interrupt = KILL.replace("SIGKILL", "SIGINT")
    environment = {"KILL": f"{RENAME} before 2"}
    arguments = ("run", str(recipe), "convert.runtimes=[onnx]", "compress=[]", "--runs", str(tmp_path / "runs"))
    done = subprocess.run(
        [sys.executable, "-c", interrupt, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "goes on from there" in done.stderr
    assert phonefit(*arguments).returncode == 0
