"""A person's own model and task, in a repo of their own that has folders named like phonefit's."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from phonefit.pipeline.result import TrialResult
from tests.tiny import write_folder

ROOT = Path(__file__).parents[2]

NETWORK = """
from torch import nn

from pipeline import CHANNELS

def build(outputs, layers=1):
    body = [nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()]
    for _ in range(layers):
        body += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, outputs))
"""

# As an installed command does, this runs with its own folder, not the current one, first on the path.
COMMAND = """
import json, sys
from pathlib import Path

import torch

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.registry import build_network, check_network
from phonefit.models.spec import Architecture, Preprocess
from phonefit.models.weights import initialise

architecture = Architecture(
    factory="models.my_net:build", arguments={"layers": 2}, outputs=3, height=32, width_pixels=32
)
network = build_network(architecture)
check_network(network, architecture)
torch.save({**build_network(architecture.model_copy(update={"outputs": 9})).state_dict()}, "mine.pt")
sentence = initialise(network, architecture, "mine.pt")
preprocess = Preprocess(height=32, width=32, mean=(0, 0, 0), std=(255, 255, 255))
info = CheckpointInfo(architecture=architecture, task="classification", labels=("a", "b", "c"), preprocess=preprocess)
checkpoint = Checkpoint.save(Path("saved"), network, info)
picture = torch.rand(1, 3, 32, 32)
import models, pipeline
print(json.dumps({
    "sentence": sentence,
    "equal": torch.equal(checkpoint.load()(picture), network(picture)),
    "convolutions": sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()),
    "models": models.__file__,
    "pipeline": pipeline.__file__,
}))
"""


def test_a_factory_in_a_repo_with_its_own_models_and_pipeline(tmp_path: Path) -> None:
    repo, command = tmp_path / "repo", tmp_path / "bin" / "command.py"
    for path, text in {
        repo / "models" / "__init__.py": "",
        repo / "models" / "my_net.py": NETWORK,
        repo / "pipeline" / "__init__.py": "CHANNELS = 12\n",
        command: COMMAND,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(command)], cwd=repo, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["equal"]
    assert result["convolutions"] == 3
    assert result["sentence"].endswith("% of the parameters from mine.pt, the head is new")
    assert Path(result["models"]) == repo / "models" / "__init__.py"
    assert Path(result["pipeline"]) == repo / "pipeline" / "__init__.py"


def run_documented(folder: Path, page: str, module: str, change: Callable[[dict], None]) -> Path:
    """Run the Python and the recipe of a page of docs/ as a person would; returns the run's folder."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    python, recipe = re.findall(r"```(?:python|yaml)\n(.*?)```", text, flags=re.DOTALL)
    (folder / "my_package").mkdir()
    (folder / "my_package" / module).write_text(python)
    write_folder(folder / "pictures", per_class=20)
    content = yaml.safe_load(recipe)
    content |= {"name": "documented", "finetune": {"epochs": 1}, "convert": {"runtimes": ["onnx"]}}
    change(content)
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", "run", "mine.yaml", "bench.repeats=5"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "documented"


def test_the_network_of_the_documentation_runs_through(tmp_path: Path) -> None:
    def without_weights(content: dict) -> None:
        del content["model"]["weights"]  # a person's own file

    folder = run_documented(tmp_path, "own-model.md", "my_module.py", without_weights)
    assert (folder / "files/original-fp32.onnx").is_file()


def test_the_task_of_the_documentation_runs_through_and_its_code_counts(tmp_path: Path) -> None:
    def leniently(content: dict) -> None:
        content["convert"]["parity"] = {"cosine": 0.5, "snr_db": 0, "agreement": 0}  # of a network of one epoch

    folder = run_documented(tmp_path, "own-task.md", "grades.py", leniently)
    trial = TrialResult.load(folder / "trial.json")
    assert (trial.quality_name, trial.quality_better, trial.quality_unit) == ("grades_off", "lower", "grades")
    assert trial.baseline is not None and trial.baseline[0] == "always the middle grade"
    (stage,) = (tmp_path / "runs/store/finetune").iterdir()
    key = json.loads((stage / "stage.json").read_text())["config"]["task"]
    assert key["arguments"] == {"softness": 0.7}
    assert len(key["code"]) == 64
