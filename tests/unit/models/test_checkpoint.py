"""A checkpoint gives back the same network, byte for byte, and notices damage."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.errors import FileFormatError, ModelError
from tests.tiny import tiny_checkpoint


def test_loading_gives_the_saved_network_in_eval_mode(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "one")
    network, again = checkpoint.load(), Checkpoint(tmp_path / "one").load()
    pictures = torch.rand(4, 3, 32, 32)
    assert not network.training
    assert torch.equal(network(pictures), again(pictures))


def test_the_same_network_gives_the_same_bytes_and_digest(tmp_path: Path) -> None:
    first, second = tiny_checkpoint(tmp_path / "one"), tiny_checkpoint(tmp_path / "two")
    other = tiny_checkpoint(tmp_path / "three", seed=1)
    assert first.digest == second.digest != other.digest
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_saving_a_loaded_checkpoint_changes_nothing(tmp_path: Path) -> None:
    first = tiny_checkpoint(tmp_path / "one")
    second = Checkpoint.save(tmp_path / "two", first.load(), first.info)
    assert second.digest == first.digest


def test_a_decomposed_and_pruned_network_comes_back(tmp_path: Path) -> None:
    parent = tiny_checkpoint(tmp_path / "parent")
    network = parent.load()
    network[0] = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 16, 3, stride=2, padding=1))
    network[4] = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False)
    network[5] = nn.BatchNorm2d(24)
    network[9] = nn.Linear(24, 3)
    child = Checkpoint.save(tmp_path / "child", network.eval(), parent.info)
    pictures = torch.rand(2, 3, 32, 32)
    assert list(child.info.modules) == ["0", "4", "5", "9"]
    assert torch.equal(child.load()(pictures), network(pictures))
    assert child.digest != parent.digest


def test_saving_and_loading_leave_the_random_state_alone(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "one")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Checkpoint.save(tmp_path / "two", checkpoint.load(), checkpoint.info)
    assert torch.equal(torch.rand(1), expected)


def test_missing_or_changed_weights_are_noticed(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "one")
    content = bytearray(checkpoint.weights_path.read_bytes())
    content[-1] ^= 1
    checkpoint.weights_path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"does not match model\.json"):
        Checkpoint(tmp_path / "one").load()
    checkpoint.weights_path.unlink()
    with pytest.raises(FileFormatError, match="incomplete"):
        Checkpoint(tmp_path / "one").load()


def test_model_json_is_checked_before_anything_is_built(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "one")
    path = tmp_path / "one" / "model.json"
    content = json.loads(path.read_text())

    path.write_text(json.dumps(content | {"schema_number": 99}))
    with pytest.raises(FileFormatError, match="schema 99"):
        Checkpoint(tmp_path / "one").load()
    path.write_text(json.dumps(content | {"surprise": 1}))
    with pytest.raises(FileFormatError, match="surprise"):
        Checkpoint(tmp_path / "one").load()
    path.write_text("{")
    with pytest.raises(FileFormatError, match="not JSON"):
        Checkpoint(tmp_path / "one").load()
    with pytest.raises(FileFormatError, match="no such file"):
        Checkpoint(tmp_path / "elsewhere").load()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "one")
    path = tmp_path / "one" / "model.json"
    content = json.loads(path.read_text())
    content["architecture"]["arguments"] = {"channels": 8}
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="weights do not fit the model"):
        Checkpoint(tmp_path / "one").load()
