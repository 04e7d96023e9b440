"""Files that schema 1 wrote still load. Samples stay as they are: a new schema gets a new sample beside them."""

import json
from pathlib import Path

import torch
from torch import nn

from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint

GOLDEN = Path(__file__).parent


def test_checkpoint_1_loads_and_computes_what_it_did() -> None:
    checkpoint = Checkpoint(GOLDEN / "checkpoint_1")
    assert checkpoint.info.labels == ("whole", "broken")
    assert checkpoint.info.metrics == {"accuracy": 0.875}
    assert [step.stage for step in checkpoint.info.lineage] == ["finetune", "decompose"]
    assert checkpoint.info.quantisation is not None
    assert checkpoint.info.quantisation.calibration.seed == 3

    network = checkpoint.load()
    assert isinstance(network.get_submodule("head.output"), nn.Sequential)
    assert network.get_submodule("features.stage4.0.norm").eps == 0.01
    with torch.no_grad():
        outputs = network(torch.linspace(-2, 2, 3 * 32 * 32).reshape(1, 3, 32, 32))
    assert torch.allclose(outputs, torch.tensor([[-0.68803, 0.24333]]), atol=1e-4)


def test_artifact_1_loads_with_every_field() -> None:
    artifact = Artifact.load(GOLDEN / "artifact_1.json")
    assert (artifact.runtime, artifact.precision, artifact.file) == ("tflite", "int8", "solar-int8.tflite")
    assert (artifact.inputs[0].shape, artifact.inputs[0].scale, artifact.inputs[0].zero_point) == (
        (1, 32, 32, 3),
        0.0187,
        -14,
    )
    assert artifact.preprocess.height == 32
    assert artifact.delegation is not None
    assert round(artifact.delegation.share, 3) == 0.929
    written = json.loads((GOLDEN / "artifact_1.json").read_text())
    assert written.items() <= artifact.as_json().items()
