"""The command line: help at once, clear errors, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phonefit.pipeline.cli import app
from phonefit.pipeline.cli_devices import bench

COMMANDS = (
    "run",
    "search",
    "export-best",
    "bench",
    "compare",
    "calibrate",
    "convert",
    "explain",
    "compare-faces",
    "enrol",
    "identify",
    "recipes",
    "models",
    "devices",
    "doctor",
)
HEAVY = ("torch", "optuna", "executorch", "litert_torch", "ai_edge_litert", "onnx", "onnxruntime", "torchao", "numpy")


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output
    assert f"phonefit {command}" in result.output.split("Example")[1]


@pytest.mark.parametrize(
    "code",
    [
        "import phonefit.pipeline.cli as cli, typer.testing as t; t.CliRunner().invoke(cli.app, ['--help'])",
        "import phonefit",
        "import phonefit.models.spec, phonefit.models.registry",
        "import phonefit.device_bench.report, phonefit.device_bench.bench",
        "import phonefit.pipeline.recipe_file",
    ],
)
def test_light_imports_stay_light(code):
    forbidden = HEAVY if "cli" in code or code == "import phonefit" else [name for name in HEAVY if name != "numpy"]
    script = f"{code}\nimport sys; print([name for name in {list(forbidden)!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_models_as_json_lists_the_pretrained_one():
    result = invoke("models", "--json")
    assert result.exit_code == 0
    assert "75.1" in json.loads(result.output)["efficientnet_lite0"]["pretrained"]


def test_models_as_table_fits_eighty_columns():
    assert max(map(len, invoke("models").output.splitlines())) <= 80


def test_recipe_can_be_printed_and_used(tmp_path):
    from phonefit.pipeline.recipe_file import load_recipe

    path = tmp_path / "mine.yaml"
    path.write_text(invoke("recipes", "show", "demo").output)
    assert load_recipe(path) == load_recipe("demo")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such-recipe"], ["no-such-recipe", "demo"]),
        (["run", "demo", "finetune.epochz=3"], ["finetune.epochz", "epochs"]),
        (["run", "demo", "finetune.epochs=many", "model.family=alexnet"], ["finetune.epochs", "many", "alexnet"]),
        (["recipes", "show", "nope"], ["nope", "demo"]),
        (["bench", "missing.tflite"], ["missing.tflite"]),
        (["compare", "missing.json", "missing.json"], ["missing.json"]),
    ],
)
def test_bad_input_exits_2_and_says_what(arguments, words):
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_long_run_that_is_too_short_is_refused_before_it_begins(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", "bench", str(tmp_path / "a.tflite"), "--sustained", "2m"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "130s at least" in done.stderr


def test_a_long_run_is_measured_once_though_it_slows_down(tmp_path, monkeypatch):
    from phonefit.device_bench import bench as module

    asked = []
    monkeypatch.setattr(module, "bench", lambda file, **options: asked.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench(Path("a.tflite"), sustained="10m")
    assert [(options["duration_seconds"], options["attempts"]) for options in asked] == [(600.0, 1)]


def test_bench_refuses_a_text_file(tmp_path):
    file = tmp_path / "model.tflite"
    file.write_text("This is not a model, whatever its name says.")
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", "bench", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "model.tflite" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_finds_this_environment_complete(tmp_path):
    result = invoke("doctor", "--json", "--runs", str(tmp_path))
    checks = json.loads(result.output)
    assert {check["name"] for check in checks} >= {"Python", "torch", "executorch", "free disk"}
    assert [check for check in checks if check["needed"] and not check["passed"]] == []


def test_doctor_says_what_is_missing(tmp_path, monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "optuna" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    result = invoke("doctor", "--json", "--runs", str(tmp_path))
    assert result.exit_code == 1
    remedies = {check["name"]: check["remedy"] for check in json.loads(result.output) if not check["passed"]}
    assert remedies["onnxruntime"].startswith("pip install onnxruntime==")
    assert remedies["optuna"].startswith("pip install optuna==")


@pytest.mark.parametrize(
    "arguments", [["compare", "{folder}", "{folder}"], ["convert", "{file}", "demo"], ["bench", "{folder}"]]
)
def test_a_folder_for_a_file_and_a_file_for_a_folder(tmp_path, arguments):
    file = tmp_path / "file"
    file.write_text("text")
    words = [word.format(folder=tmp_path, file=file) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr
