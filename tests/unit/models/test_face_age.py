"""face_age computes what face-api.js computes, and its published ages come out in years on any task's scale."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from phonefit.models.decoding import Decoding, EmbeddingDecoding, MultiLabelDecoding, RegressionDecoding
from phonefit.models.errors import ModelError
from phonefit.models.families.blocks import same_padding
from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture, HeadOptions
from phonefit.models.tfjs_weights import load_tfjs
from phonefit.models.weights import initialise
from tests.face_age_case import write_weights

YEARS = RegressionDecoding(unit="years")
ARCHITECTURE = Architecture(family="face_age", outputs=1, height=112, width_pixels=112)


def as_published(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """The age as TinyXception.ts and AgeGenderNet.ts compute it, with TensorFlow's padding written out."""

    def padded(x: Tensor, value: float) -> Tensor:
        (top, bottom), (left, right) = (same_padding(pixels, 3, 2) for pixels in x.shape[2:])
        return functional.pad(x, (left, right, top, bottom), value=value)

    def convolve(x: Tensor, name: str, stride: int) -> Tensor:
        filters = weights[f"{name}/filters"].permute(3, 2, 0, 1)
        inputs = padded(x, 0.0) if filters.shape[-1] == 3 else x
        return functional.conv2d(inputs, filters, weights[f"{name}/bias"], stride)

    def separable(x: Tensor, name: str) -> Tensor:
        depthwise = weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
        pointwise = weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1)
        filtered = functional.conv2d(x, depthwise, padding=1, groups=len(depthwise))
        return functional.conv2d(filtered, pointwise, weights[f"{name}/bias"])

    def reduction(x: Tensor, name: str, activate: bool = True) -> Tensor:
        out = separable(functional.relu(x) if activate else x, f"{name}/separable_conv0")
        out = separable(functional.relu(out), f"{name}/separable_conv1")
        pooled = functional.max_pool2d(padded(out, -math.inf), 3, 2)
        return pooled + convolve(x, f"{name}/expansion_conv", 2)

    x = functional.relu(convolve(pictures, "entry_flow/conv_in", 2))
    x = reduction(x, "entry_flow/reduction_block_0", activate=False)
    x = reduction(x, "entry_flow/reduction_block_1")
    for block in range(2):
        out = x
        for index in range(3):
            out = separable(functional.relu(out), f"middle_flow/main_block_{block}/separable_conv{index}")
        x = out + x
    x = reduction(x, "exit_flow/reduction_block")
    x = functional.relu(separable(x, "exit_flow/separable_conv"))
    return x.mean((2, 3)) @ weights["fc/age/weights"] + weights["fc/age/bias"]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Random ones, in the working folder as npm puts them there."""
    manifest = write_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    return load_tfjs(manifest)


def start(decoding: Decoding | None = YEARS, **changes: object) -> tuple[nn.Module, str]:
    architecture = ARCHITECTURE.model_copy(update=changes)
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    return network, initialise(network, architecture, "pretrained", (), decoding)


def pictures(height: int = 112, width: int = 112) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.mark.parametrize(("height", "width"), [(112, 112), (57, 70)])
def test_it_computes_what_was_published(weights: dict[str, Tensor], height: int, width: int) -> None:
    network, sentence = start(height=height, width_pixels=width)
    assert sentence.startswith("100% of the parameters from @vladmandic/face-api of npm")
    with torch.no_grad():
        expected = as_published(weights, pictures(height, width))
        torch.testing.assert_close(network(pictures(height, width)), expected, rtol=1e-3, atol=1e-4)
    assert float(expected.std()) > 1e-2  # of pictures that it tells apart


def test_the_number_is_the_same_on_the_scale_of_any_task(weights: dict[str, Tensor]) -> None:
    scaled = YEARS.model_copy(update={"scale": 17.5, "offset": 36.0})
    with torch.no_grad():
        years, outputs = start()[0](pictures()), start(scaled)[0](pictures())
    assert float((years - outputs).abs().min()) > 1
    torch.testing.assert_close(17.5 * outputs + 36.0, years, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("decoding", "changes"),
    [
        (YEARS.model_copy(update={"reads": "expected_index"}), {"outputs": 101}),
        (YEARS, {"head": HeadOptions(hidden=(512,))}),
        (YEARS, {"head": HeadOptions(hidden=(512,)), "depth": 2.0}),
        (YEARS, {"width": 0.5}),
        (MultiLabelDecoding(thresholds=(0.5,)), {}),  # a logit is no age
        (EmbeddingDecoding(), {"outputs": 128}),
        (None, {}),
    ],
    ids=["expectation", "hidden", "hidden-deep", "narrow", "label", "embedding", "classes"],
)
def test_another_head_starts_anew(
    weights: dict[str, Tensor], decoding: Decoding | None, changes: dict[str, object]
) -> None:
    torch.manual_seed(0)
    untrained = build_network(ARCHITECTURE.model_copy(update=changes)).get_submodule("head").state_dict()
    network, sentence = start(decoding, **changes)
    assert ", the head is new" in sentence
    for name, tensor in network.get_submodule("head").state_dict().items():
        assert torch.equal(tensor, untrained[name])


def test_a_deeper_network_keeps_the_published_head_and_layers(weights: dict[str, Tensor]) -> None:
    network, sentence = start(depth=2.0)
    assert sentence.startswith("80% ")
    assert "new" not in sentence
    torch.testing.assert_close(network.get_submodule("head.output").weight, weights["fc/age/weights"].T)


def test_untrained_it_keeps_the_size_of_its_values() -> None:
    torch.manual_seed(0)
    features = build_network(ARCHITECTURE).get_submodule("features")
    with torch.no_grad():
        assert 0.1 < float(features(pictures()).std()) < 10


def test_without_the_package_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=r"weights of face_age are missing.*npm install .*@vladmandic/face-api@1\.7\.15"
    ):
        start()
