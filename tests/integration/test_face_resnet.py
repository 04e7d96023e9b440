"""The published weights of face_resnet: the same function as published, and real photographs told apart."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from phonefit.models.data.align import cropped
from phonefit.models.data.picture import open_picture
from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.errors import FileFormatError, ModelError
from phonefit.models.families.face_resnet import MANIFEST
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.tfjs_weights import load_tfjs
from phonefit.models.weights import initialise
from tests.face_photographs import FACES, FOLDER, write_photographs
from tests.tfjs import write_tfjs_weights

SPEC = model_spec("face_resnet")
ARCHITECTURE = Architecture(family="face_resnet", outputs=128, height=150, width_pixels=150)
PLAIN = {32: 3, 64: 3, 128: 2, 256: 2}
DISTANCE = 0.6
"""Below this Euclidean distance dlib takes two faces for one person's."""


def published_shapes():
    shapes = {"fc": [256, 128]}
    before, names = 3, [("conv32_down", 7, 32)]
    for channels, plain in PLAIN.items():
        if channels > 32:
            names += [(f"conv{channels}_down/conv{each}", 3, channels) for each in (1, 2)]
        for block in range(1, plain + 1):
            names += [(f"conv{channels}_{block}/conv{each}", 3, channels) for each in (1, 2)]
    names += [(f"conv256_down_out/conv{each}", 3, 256) for each in (1, 2)]
    for name, kernel, channels in names:
        shapes[f"{name}/conv/filters"] = [kernel, kernel, before, channels]
        shapes[f"{name}/conv/bias"] = shapes[f"{name}/scale/weights"] = shapes[f"{name}/scale/biases"] = [channels]
        before = channels
    return shapes


def write_weights(folder):
    """Random weights of the published form, in integers of 8 bits."""
    return write_tfjs_weights(
        folder / MANIFEST,
        published_shapes(),
        lambda name, shape: (0.5, 1.5) if name.endswith("scale/weights") else (-0.05, 0.05),
    )


def as_published(weights, pictures):
    """The network as face-api.js computes it, layer by layer."""

    def convolve(x, name, stride=1, padding=1):
        x = functional.conv2d(
            x, weights[f"{name}/conv/filters"].permute(3, 2, 0, 1), weights[f"{name}/conv/bias"], stride, padding
        )
        scale, shift = (weights[f"{name}/scale/{part}"][:, None, None] for part in ("weights", "biases"))
        return x * scale + shift

    def block(x, name):
        return functional.relu(convolve(functional.relu(convolve(x, f"{name}/conv1")), f"{name}/conv2") + x)

    def halving(x, name):
        inside = convolve(functional.relu(convolve(x, f"{name}/conv1", 2, 0)), f"{name}/conv2")
        around = functional.avg_pool2d(x, 2)
        wider = functional.pad(around, (0, 0, 0, 0, 0, inside.shape[1] - around.shape[1]))
        missing = around.shape[-1] - inside.shape[-1]
        return functional.relu(wider + functional.pad(inside, (0, missing, 0, missing)))

    x = functional.max_pool2d(functional.relu(convolve(pictures, "conv32_down", 2, 0)), 3, 2)
    for channels, plain in PLAIN.items():
        if channels > 32:
            x = halving(x, f"conv{channels}_down")
        for number in range(1, plain + 1):
            x = block(x, f"conv{channels}_{number}")
    return halving(x, "conv256_down_out").mean((2, 3)) @ weights["fc"]


def loaded():
    network = build_network(ARCHITECTURE).eval()
    assert initialise(network, ARCHITECTURE, "pretrained").startswith("100% of the parameters")
    return network


def test_it_computes_what_was_published(tmp_path, monkeypatch):
    manifest = write_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    pictures = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        expected = as_published(load_tfjs(manifest), pictures)
        torch.testing.assert_close(loaded()(pictures), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_manifest_that_does_not_fit_its_file_is_refused(tmp_path):
    manifest = write_weights(tmp_path)
    data = manifest.parent / "part.bin"
    data.write_bytes(data.read_bytes()[:-7])
    with pytest.raises(FileFormatError, match="not a complete manifest"):
        load_tfjs(manifest)


def test_without_the_package_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"npm install --no-save .*@vladmandic/face-api@1\.7\.15"):
        loaded()


@pytest.mark.faces
def test_photographs_of_one_person_are_nearer_than_those_of_two(tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    network, preprocess = loaded(), SPEC.preprocess
    photographs = write_photographs(tmp_path)
    pixels = np.stack(
        [apply(cropped(open_picture(path), FACES[name]), preprocess) for name, path in photographs.items()]
    )
    with torch.no_grad():
        vectors = network(torch.from_numpy(normalise(pixels, preprocess))).numpy()
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    one_person = apart[1:, 1:][np.triu_indices(3, 1)]
    assert one_person.max() < DISTANCE < apart[0, 1:].min()
