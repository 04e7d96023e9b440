"""A task whose files have several outputs: converted, compared and judged as what the network gives."""

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import SUFFIXES
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.spec import Architecture
from phonefit.models.tasks.classification import Classification
from phonefit.pipeline.convert import CONVERTERS, converter
from phonefit.pipeline.convert.parity import measure_parity
from phonefit.pipeline.errors import ConversionError
from tests.tiny import LABELS, PREPROCESS, SIZE, tiny_context

OUTPUTS = 4 * 4 * 2 + len(LABELS)


class Two(nn.Module):
    """Two maps of a quarter of the picture and the labels; joined for training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU6())
        self.maps, self.pool, self.labels = nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(8, len(LABELS))
        self.joined = True

    def forward(self, pictures):
        values = self.body(pictures)
        maps, labels = self.maps(values), self.labels(self.pool(values).flatten(1))
        return torch.cat([maps.flatten(1), labels], dim=1) if self.joined else (maps, labels)


def build(outputs: int) -> nn.Module:
    return Two()


class TwoOutputs(Classification):
    def outputs(self, labels, preprocess):
        return OUTPUTS

    def exported(self, network, preprocess):
        network.joined = False
        return network

    def decode(self, outputs):
        return super().decode(outputs[:, -len(LABELS) :])


class OneTooFew(TwoOutputs):
    def exported(self, network, preprocess):
        return nn.Sequential(network.body, network.maps)


@pytest.fixture
def case(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture(
        factory="tests.integration.test_several_outputs:build", outputs=OUTPUTS, height=SIZE, width_pixels=SIZE
    )
    info = CheckpointInfo(architecture=architecture, task="classification", labels=LABELS, preprocess=PREPROCESS)
    context = tiny_context(tmp_path)
    object.__setattr__(context, "task", TwoOutputs())
    return info, context, tmp_path


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
@pytest.mark.parametrize("runtime", CONVERTERS)
def test_files_have_the_outputs_in_their_order_and_together_they_are_the_networks(case, runtime, precision):
    info, context, folder = case
    schemes = {"int8": "int8_static", "fp16": "fp16"}
    if precision != "fp32":
        asked = Quantisation(scheme=schemes[precision], calibration=CalibrationSet(samples=16))
        info = info.model_copy(update={"quantisation": asked})
    checkpoint = Checkpoint.save(folder / "checkpoint", Two(), info)
    artifact = converter(runtime)(checkpoint, context, folder, "two")
    assert [spec.shape[0] for spec in artifact.outputs] == [1, 1]
    assert artifact.outputs[1].shape == (1, len(LABELS))
    assert sorted(artifact.outputs[0].shape[1:]) == [2, 4, 4]
    path = folder / f"two{SUFFIXES[runtime]}"
    figures = measure_parity(path, runtime, checkpoint, context, 8)
    assert figures.cosine > 0.98
    session = runtime_module(runtime).load(path, threads=1)
    assert run_samples(session, np.zeros((2, 3, SIZE, SIZE), np.float32)).shape == (2, OUTPUTS)


def test_outputs_of_another_size_than_the_networks_are_refused(case):
    info, context, folder = case
    object.__setattr__(context, "task", OneTooFew())
    checkpoint = Checkpoint.save(folder / "checkpoint", Two(), info)
    with pytest.raises(ConversionError, match=rf"\(1, 2, 4, 4\).*{OUTPUTS} values"):
        converter("onnx")(checkpoint, context, folder, "two")
