"""Style transfer: its losses against values worked out by hand, weights of VGG16, the painted picture."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from phonefit.models.errors import DataError, ModelError
from phonefit.models.families import vgg
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.tasks import task, task_key
from phonefit.models.tasks.options import StyleOptions
from phonefit.models.tasks.perceptual import content_and_style, gram, loss_network, style_grams
from phonefit.models.tasks.style_picture import PAINTED_SIZE, painted, style_picture
from phonefit.models.weights import load_weights_file
from tests.style_case import CHANNELS, tiny_vgg
from tests.tiny import PREPROCESS

SIZE = 16
WIDTH = 0.125


@pytest.fixture
def weights(tmp_path):
    return tiny_vgg(tmp_path)


def pictures(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIZE, SIZE), np.uint8)


def test_gram_matrices_are_means_over_the_places():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert gram(features).tolist() == [[[2.5, 5.5], [5.5, 12.5]]]


def test_the_unchanged_picture_loses_no_content_and_the_style_itself_has_no_style_loss(weights):
    network, style = loss_network(weights, "cpu"), style_grams(weights, None, SIZE, SIZE, "cpu")
    itself = torch.tensor(style_picture(None, SIZE, SIZE)).float().permute(2, 0, 1)[None]
    noise = torch.from_numpy(pictures()).float()
    content, missing = content_and_style(network, noise, noise, style)
    assert content.tolist() == [0, 0, 0]
    assert (missing > 0.01).all()
    content, missing = content_and_style(network, itself.expand(3, -1, -1, -1), noise, style)
    assert (content > 0.01).all()
    assert missing.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_content_loss_is_the_share_of_the_features_that_is_off(weights):
    network, style = loss_network(weights, "cpu"), style_grams(weights, None, SIZE, SIZE, "cpu")
    one, other = (torch.from_numpy(pictures(1, seed)).float() for seed in (0, 1))
    first, second = (network(picture)[2].double() for picture in (one, other))
    expected = (first - second).square().sum() / second.square().sum()
    assert content_and_style(network, one, other, style)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_features_are_those_of_a_plain_vgg(weights):
    state, usual = load_file(weights), model_spec("vgg16").preprocess
    levels = torch.from_numpy(pictures()).float()
    values = (levels - torch.tensor(usual.mean).view(3, 1, 1)) / torch.tensor(usual.std).view(3, 1, 1)
    for place in (0, 2):
        name = f"features.{place}"
        values = functional.relu(functional.conv2d(values, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
    found = loss_network(weights, "cpu")(levels)
    assert torch.allclose(found[0], values, atol=1e-4)
    assert [one.shape[2] for one in found] == [SIZE, SIZE // 2, SIZE // 4, SIZE // 8]


def test_the_loss_weighs_its_parts_and_judges_what_is_shown(weights):
    made = task(StyleOptions(features=weights, content_weight=2, style_weight=3)).fitted((), pictures(), PREPROCESS)
    outputs = np.random.default_rng(1).normal(0.5, 1, (3, 3 * SIZE * SIZE)).astype(np.float32)
    metrics = made.metrics(outputs, pictures())
    assert metrics == made.metrics(outputs.clip(0, 1), pictures())
    parts = 2 * metrics["content_loss"] + 3 * metrics["style_loss"]
    assert metrics["perceptual_loss"] == pytest.approx(parts, rel=1e-5)
    assert made.mistakes(outputs, pictures()).mean() == pytest.approx(parts, rel=1e-5)
    words, unchanged = made.baseline(pictures(), pictures())
    assert (words, unchanged["content_loss"]) == ("the unchanged picture", 0)


def test_losses_that_were_first_asked_for_in_inference_can_be_trained_with(weights):
    made = task(StyleOptions(features=weights))
    outputs = torch.rand(2, 3 * SIZE * SIZE)
    with torch.inference_mode():
        made.loss(outputs, torch.from_numpy(pictures(2)), None)
    outputs.requires_grad_()
    made.loss(outputs, torch.from_numpy(pictures(2)), None).backward()
    assert outputs.grad.abs().sum() > 0


def test_pictures_agree_where_their_levels_hardly_differ():
    made, outputs = task("style"), np.full((2, 12), 0.5, dtype=np.float32)
    others = outputs + np.array([[4], [7]], dtype=np.float32) / 255
    assert made.agree(outputs, others).tolist() == [True, False]


def test_the_key_knows_the_content_of_the_files_and_not_their_place(tmp_path, weights):
    for name, level in (("one", 0), ("copy", 0), ("other", 9)):
        Image.new("RGB", (8, 8), (level, 0, 0)).save(tmp_path / f"{name}.png")
    one, copy, other = (
        task_key(StyleOptions(picture=tmp_path / f"{name}.png", features=weights)) for name in ("one", "copy", "other")
    )
    assert one == copy != other


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"task.picture: .*none.png: no such file"):
        style_picture(tmp_path / "none.png", 8, 8)


def test_the_painted_picture_is_always_the_same_and_has_colours():
    assert painted().size == (PAINTED_SIZE, PAINTED_SIZE)
    pixels = np.asarray(painted())
    painted.cache_clear()
    assert np.array_equal(np.asarray(painted()), pixels)
    assert pixels.reshape(-1, 3).std(axis=0).min() > 30
    assert style_picture(None, 40, 24).shape == (40, 24, 3)


def keras_state():
    """Weights of a small VGG16 as the package has them: blue, green, red come in, and channels are last."""
    torch.manual_seed(0)
    state, inputs = {}, 3
    for block, (count, channels) in enumerate(zip(vgg.VARIANTS["vgg16"][0], vgg.STAGE_CHANNELS, strict=True), start=1):
        outputs = int(channels * WIDTH)
        for layer in range(count):
            name = f"block{block}/layers/conv2d{f'_{layer}' if layer else ''}/vars"
            weight = torch.randn(3, 3, inputs, outputs) * (2 / (9 * inputs)) ** 0.5
            state |= {f"{name}/0": weight, f"{name}/1": torch.rand(outputs)}
            inputs = outputs
    return {"dsn1/vars/0": torch.rand(1, 1, 8, 1), "dsn1/vars/1": torch.rand(1), **state}


def test_packaged_weights_take_our_inputs_where_theirs_were_blue_green_red():
    state = keras_state()
    levels = torch.from_numpy(pictures()).float()
    usual = model_spec("vgg16").preprocess
    ours = (levels - torch.tensor(usual.mean).view(3, 1, 1)) / torch.tensor(usual.std).view(3, 1, 1)
    theirs = levels.flip(1) - torch.tensor(vgg.EDGES_MEAN[::-1]).view(3, 1, 1)
    weight, bias = vgg.plain_convolutions(state, "keras", 13)[0]
    name = "block1/layers/conv2d/vars"
    expected = functional.conv2d(theirs, state[f"{name}/0"].permute(3, 2, 0, 1), state[f"{name}/1"])
    assert torch.allclose(functional.conv2d(ours, weight, bias), expected, atol=1e-3)


def test_packaged_weights_compute_the_same_in_our_network_in_eval_mode():
    state = keras_state()
    network = build_network(Architecture(family="vgg16", width=WIDTH, outputs=2, height=32, width_pixels=32)).eval()
    left = network.load_state_dict(vgg.VGG16_WEIGHTS.rename(state), strict=False)
    assert all(name.startswith("head.") for name in left.missing_keys) and not left.unexpected_keys
    inputs = values = torch.randn(2, 3, 32, 32)
    layers = iter(vgg.plain_convolutions(state, "keras", 13))
    for count in (2, 2, 3, 3, 3):
        for _ in range(count):
            weight, bias = next(layers)
            values = functional.relu(functional.conv2d(values, weight, bias, padding=1))
        values = functional.max_pool2d(values, 2)
    with torch.no_grad():
        assert torch.allclose(network.features(inputs), values, atol=1e-4)


def test_files_are_read_in_the_order_of_the_layers_and_others_are_refused(tmp_path, weights):
    found = vgg.plain_convolutions(load_weights_file(weights), "tiny", 10)
    assert [len(weight) for weight, _ in found] == list(CHANNELS)
    save_file(
        {"features.0.weight": torch.rand(4, 3, 3, 3), "features.0.bias": torch.rand(4)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(ModelError, match=r"x: holds no VGG16: 10 convolutions of 3x3 .* found 1 \(4x3x3x3"):
        vgg.plain_convolutions(load_weights_file(tmp_path / "x.safetensors"), "x", 10)
