"""Weights come from safe files only, and only where they fit."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.decoding import RegressionDecoding
from phonefit.models.errors import FileFormatError, ModelError
from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture, HeadOptions
from phonefit.models.weights import initialise, load_adapted, load_matching, load_strictly, load_weights_file
from tests.tiny import PREPROCESS


def small(outputs: int = 4, channels: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


class Shell:
    """Pickles to a call of os.system, as an attacker's file would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_the_usual_ways_to_save_weights_are_read(tmp_path: Path, suffix: str, wrap: str) -> None:
    path, state = tmp_path / f"weights{suffix}", small().state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state if wrap == "plain" else {wrap: state, "epoch": 3}, path)
    loaded = load_weights_file(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("make", ["pickle", "torch", "module"])
def test_a_file_that_could_run_code_is_refused_and_does_not_run(tmp_path: Path, make: str) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "ran"
    if make == "pickle":
        path.write_bytes(pickle.dumps({"weight": Shell(marker)}))
    elif make == "torch":
        torch.save({"weight": Shell(marker)}, path)
    else:
        torch.save(small(), path)
    with pytest.raises(FileFormatError, match=r"refused.*state_dict"):
        load_weights_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"PK\x03\x04 broken", b"\x80\x02.", bytes(range(256))])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".h5"])
def test_broken_files_are_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"weights{suffix}"):
        load_weights_file(path)


def test_files_without_tensors_and_missing_files(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "weights.pt")
    with pytest.raises(FileFormatError, match="holds no tensors"):
        load_weights_file(tmp_path / "weights.pt")
    with pytest.raises(FileFormatError, match="no such file"):
        load_weights_file(tmp_path / "none.pt")


def test_strict_loading_names_what_does_not_fit() -> None:
    state = small().state_dict()
    load_strictly(small(), state, "here")
    expected = r"here: .*0\.bias: \(8,\) in the file, \(16,\) in the model; 3\.bias: missing from the file.*and 1 more"
    with pytest.raises(ModelError, match=expected):
        load_strictly(small(channels=16), {name: state[name] for name in state if name != "3.bias"}, "here")
    with pytest.raises(ModelError, match=r"extra: not in the model"):
        load_strictly(small(), {**state, "extra": torch.zeros(1)}, "here")


def test_a_new_head_starts_anew_and_the_rest_is_loaded() -> None:
    state, network = small(outputs=10).state_dict(), small(outputs=4)
    before = network[3].weight.clone()
    assert load_adapted(network, state, "here") == ("3.weight", "3.bias")
    assert torch.equal(network[0].weight, state["0.weight"])
    assert torch.equal(network[3].weight, before)


def test_a_fitting_head_is_kept() -> None:
    state, network = small().state_dict(), small()
    assert load_adapted(network, state, "here") == ()
    assert torch.equal(network[3].weight, state["3.weight"])


def test_only_the_head_may_differ() -> None:
    with pytest.raises(ModelError, match=r"0\.weight"):
        load_adapted(small(channels=16), small().state_dict(), "here")


def test_matching_tensors_are_loaded_and_named() -> None:
    state, network = small(channels=8).state_dict(), small(channels=16)
    assert load_matching(network, state) == {"3.bias"}
    assert torch.equal(network[3].bias, state["3.bias"])


TINY = Architecture(family="resnet18", width=0.125, outputs=3, height=32, width_pixels=32)


def test_random_says_so() -> None:
    assert "trained from scratch" in initialise(build_network(TINY), TINY, "random")


def test_a_file_of_the_same_family_with_another_head(tmp_path: Path) -> None:
    save_file(build_network(TINY).state_dict(), tmp_path / "mine.safetensors")
    wanted = TINY.model_copy(update={"outputs": 5, "head": HeadOptions(hidden=(16,))})
    network = build_network(wanted)
    sentence = initialise(network, wanted, str(tmp_path / "mine.safetensors"))
    assert sentence.startswith("99% of the parameters from ")
    assert sentence.endswith("the head is new")
    same = initialise(build_network(TINY), TINY, str(tmp_path / "mine.safetensors"))
    assert same == "100% of the parameters from mine.safetensors"


@pytest.mark.parametrize(
    "architecture", [TINY, Architecture(factory="tests.tiny:build", outputs=3, height=32, width_pixels=32)]
)
def test_pretrained_without_packaged_weights_says_what_there_is(architecture: Architecture) -> None:
    with pytest.raises(ModelError, match=r"packaged: efficientnet_lite0, .*\. Give the path of a \.safetensors"):
        initialise(build_network(architecture), architecture, "pretrained")


@pytest.mark.parametrize("family", ["mobilenet_v2", "resnet18"])
def test_a_checkpoint_that_gives_a_number_gives_it_on_another_scale_too(tmp_path: Path, family: str) -> None:
    wanted = Architecture(family=family, width=0.1, outputs=1, height=32, width_pixels=32)
    before = RegressionDecoding(scale=2.0, offset=30.0, unit="years")
    info = CheckpointInfo(
        architecture=wanted, task="regression", labels=("age",), preprocess=PREPROCESS, decoding=before
    )  # fmt: skip
    torch.manual_seed(0)
    known = Checkpoint.save(tmp_path / "known", build_network(wanted).eval(), info).load()
    network = build_network(wanted).eval()
    after = before.model_copy(update={"scale": 12.5, "offset": 41.0})
    assert initialise(network, wanted, str(tmp_path / "known"), ("age",), after).startswith("all from a checkpoint")
    pictures = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(12.5 * network(pictures) + 41.0, 2.0 * known(pictures) + 30.0)
        initialise(network, wanted, str(tmp_path / "known"), ("age",), None)  # of a task that reads no number
        torch.testing.assert_close(network(pictures), known(pictures))
