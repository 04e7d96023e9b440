"""Scores of candidates without training: rounding as the files have it, bytes as they are stored."""

import pytest
import torch
from torch import nn

from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.pipeline.compress.plan_score import _stored, score, stored_bytes
from tests.tiny import tiny_checkpoint, tiny_context

CALIBRATION = CalibrationSet(samples=16)
SCHEMES = {
    "fp16": Quantisation(scheme="fp16"),
    "int8_static": Quantisation(calibration=CALIBRATION),
    "int8_dynamic": Quantisation(scheme="int8_dynamic"),
    "int8_weights": Quantisation(scheme="int8_weights"),
    "int4_weights": Quantisation(scheme="int4_weights"),
}


def test_a_network_beside_itself_loses_nothing_and_each_scheme_loses_by_its_bits(tmp_path):
    checkpoint, context = tiny_checkpoint(tmp_path / "c"), tiny_context(tmp_path)
    found = score(checkpoint, checkpoint, SCHEMES, context)
    assert found.loss == pytest.approx(0, abs=1e-6)
    assert found.changed == 0
    losses = {name: rounded.loss for name, rounded in found.rounded.items()}
    assert losses["fp16"] < losses["int8_weights"] < losses["int4_weights"]
    assert losses["int8_weights"] < losses["int8_static"]
    assert found.left_out == {}
    assert found == score(checkpoint, checkpoint, SCHEMES, context)
    assert len(list((tmp_path / "runs/store/plan_score").iterdir())) == 1


def test_another_network_is_further_away(tmp_path):
    context = tiny_context(tmp_path)
    parent, other = tiny_checkpoint(tmp_path / "p"), tiny_checkpoint(tmp_path / "o", seed=1)
    assert score(other, parent, {}, context).loss > 0.001


def test_bytes_are_those_of_folded_weights():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    assert stored_bytes(network, None) == 4 * (3 * 8 * 9 + 8 + 8 * 2 + 2)
    assert stored_bytes(network, Quantisation(scheme="fp16")) == 2 * (3 * 8 * 9 + 8 + 8 * 2 + 2)
    assert stored_bytes(network, Quantisation(scheme="int8_weights")) == 3 * 8 * 9 + 8 * 2 + 8 * (8 + 2)
    in_float = Quantisation(scheme="int8_weights", float_layers=("3",))
    assert stored_bytes(network, in_float) == 3 * 8 * 9 + 8 * 8 + 4 * (8 * 2 + 2)
    assert stored_bytes(network, Quantisation(scheme="int4_weights")) == 3 * 8 * 9 + 8 * 2 / 2 + 8 * (8 + 2)


@pytest.mark.parametrize(
    ("asked", "inputs", "values"),
    [
        (Quantisation(scheme="int4_weights"), 64, 15),
        (Quantisation(scheme="int4_weights", granularity="per_block"), 64, 15),
        (Quantisation(scheme="int4_weights", granularity="per_block"), 60, 255),  # no multiple of a block: int8
        (Quantisation(scheme="int8_weights"), 64, 255),
    ],
)
def test_weights_have_as_many_values_as_their_bits_allow(asked, inputs, values):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, 4)
    stored = _stored(layer, asked)
    assert stored.shape == layer.weight.shape
    groups = stored.reshape(-1, 32) if asked.granularity == "per_block" and inputs % 32 == 0 else stored
    assert max(len(row.unique()) for row in groups) <= values
    assert (stored - layer.weight).abs().max() < layer.weight.abs().max() / (values / 2 - 1)


def test_one_scale_a_tensor_rounds_coarser_than_one_a_channel():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        layer.weight[0] *= 100
    errors = [
        float((_stored(layer, Quantisation(scheme="int8_weights", granularity=granularity)) - layer.weight).abs().sum())
        for granularity in ("per_channel", "per_tensor")
    ]
    assert errors[0] < errors[1]
