"""A person's own model, in a repo of their own that has folders named like phonefit's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

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


def test_the_network_of_the_documentation_runs_through(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
    python, recipe = re.findall(r"```(?:python|yaml)\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_module.py").write_text(python)
    write_folder(tmp_path / "pictures", per_class=20)
    content = yaml.safe_load(recipe)
    del content["model"]["weights"]  # a person's own file
    content |= {"name": "documented", "finetune": {"epochs": 1}, "convert": {"runtimes": ["onnx"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [sys.executable, "-m", "phonefit.pipeline.cli", "run", "mine.yaml", "bench.repeats=5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/documented/files/original-fp32.onnx").is_file()
