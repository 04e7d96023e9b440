"""Style transfer through the whole line: a folder of pictures, pruning, distillation, int8 files of all runtimes."""

import re

import numpy as np
import pytest
import yaml
from PIL import Image

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import load_artifact
from phonefit.models.decode import picture
from phonefit.models.decoding import StyleDecoding
from phonefit.models.tasks.style_picture import style_picture
from phonefit.pipeline.run import run
from tests.style_case import tiny_vgg

pytestmark = pytest.mark.xdist_group("style")  # its fixtures take long

SIZE = 32
PICTURES = 48
STEPS = [
    {"technique": "prune", "ratio": 0.3, "criterion": "taylor", "recover": {"epochs": 1}},
    {"technique": "distil", "epochs": 1},
    {"technique": "quantise", "calibration": {"samples": 16}},
]


def write_pictures(folder):
    """Grey discs on slopes of grey: no colour at all, which the style has."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for index in range(PICTURES):
        y, x, radius, level = random.integers((6, 6, 4, 60), (26, 26, 12, 255))
        pixels = np.where((rows - y) ** 2 + (columns - x) ** 2 < radius**2, level, 3 * rows + random.integers(0, 60))
        path = folder / ("a" if index % 2 else "b/c") / f"{index:02}.png"  # folders are no classes here
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("style")
    Image.fromarray(style_picture(None, 48, 64)).save(folder / "mine.png")
    content = {
        "name": "style",
        "model": {"family": "style_net", "width": 0.5, "depth": 0.2},
        "task": {
            "name": "style",
            "picture": str(folder / "mine.png"),
            "content_weight": 0.5,
            "features": str(tiny_vgg(folder)),
        },
        "data": {
            "source": "image_folder",
            "path": str(write_pictures(folder / "pictures")),
            "input": {"height": SIZE},
            "split": {"validation": 0.25, "test": 0.25},
        },
        "finetune": {"epochs": 4, "learning_rate": 0.003, "freeze_epochs": 0, "batch_size": 4},
        "compress": STEPS,
        "convert": {"parity": {"samples": 8}},
        "bench": {"repeats": 3, "warmups": 1, "attempts": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return run(folder / "recipe.yaml", runs=folder / "runs"), folder / "runs" / "style"


def test_every_file_is_nearer_to_the_style_than_the_unchanged_picture(finished):
    trial, _ = finished
    words, unchanged = trial.baseline
    assert words == "the unchanged picture"
    found = {(file.artifact.runtime, file.artifact.precision) for file in trial.files}
    assert found == {(name, kind) for name in ("executorch", "tflite", "onnx") for kind in ("fp32", "int8")}
    for file in trial.files:
        for quality in (file.quality, file.test_quality):
            assert quality["perceptual_loss"] < 0.9 * unchanged
            assert quality["perceptual_loss_low"] < quality["perceptual_loss"] < quality["perceptual_loss_high"]
            parts = 0.5 * quality["content_loss"] + quality["style_loss"]
            assert quality["perceptual_loss"] == pytest.approx(parts, rel=1e-4)


def test_the_steps_made_it_smaller_and_int8_keeps_the_quality(finished):
    trial, _ = finished
    files = {(file.artifact.runtime, file.artifact.precision): file for file in trial.files}
    compressed = trial.checkpoint_metrics["compressed"]["perceptual_loss"]
    for runtime in ("executorch", "tflite", "onnx"):
        assert files[runtime, "int8"].artifact.bytes < 0.6 * files[runtime, "fp32"].artifact.bytes
        assert files[runtime, "int8"].quality["perceptual_loss"] == pytest.approx(compressed, rel=0.05)


def test_a_file_gives_a_picture_and_says_how_to_read_it(finished):
    _, folder = finished
    inputs = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)
    for path in sorted((folder / "files").glob("*.json")):
        artifact, model = load_artifact(path)
        (output,) = artifact.outputs
        assert isinstance(artifact.decoding, StyleDecoding)
        assert output.shape == (1, 3, SIZE, SIZE)
        assert output.layout == "NCHW"
        session = runtime_module(artifact.runtime).load(model, threads=1)
        drawn = picture(run_samples(session, inputs).reshape(output.shape[1:]), output.layout, artifact.decoding)
        assert drawn.shape == (SIZE, SIZE, 3)
        assert drawn.std() > 10


def test_the_page_shows_pictures_before_and_after(finished):
    _, folder = finished
    page = (folder / "errors.html").read_text()
    assert page.count('class="redrawn"') >= 8
    assert page.count("<img src=") == 3 * page.count('<figure class="redrawn">')
    assert "loss: unchanged " in page
    assert re.search(r"this file [\d.]+, (original|compressed) \w+ (fp32|int8) [\d.]+<", page)
