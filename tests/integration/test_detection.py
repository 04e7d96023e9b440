"""Detection through the line: steps, all runtimes, both precisions, and the trap of one scale for boxes and scores."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models import layers
from phonefit.models.artifact import SUFFIXES, load_artifact
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.decoding import DetectionDecoding
from phonefit.models.families.blocks import ConvNorm
from phonefit.models.families.detector import detector
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture, DetectorOptions
from phonefit.models.tasks import task
from phonefit.models.tasks.options import DetectionOptions
from phonefit.pipeline.convert import CONVERTERS, converter
from phonefit.pipeline.convert.parity import measure_parity
from phonefit.pipeline.run import run
from tests.tiny import LABELS, PREPROCESS, SIZE, TinyPictures, tiny_context

pytestmark = pytest.mark.xdist_group("detection")  # its fixtures take long

PICTURES, SIDE = 80, 64
STRIDES = (8, 16)


def build(outputs, side=SIDE, labels=2):
    """A detector of one's own on four convolutions."""
    layers = [ConvNorm(inputs, channels, 3, 2) for inputs, channels in pairwise((3, 16, 24, 32, 32))]
    return detector(nn.Sequential(*layers), (side, side), labels, DetectorOptions(channels=16, strides=STRIDES))


def write_coco(folder):
    """Squares of red or blue on grey noise, one or two in a picture."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    for place in range(PICTURES):
        pixels = random.integers(60, 160, (SIDE, SIDE, 3))
        for left in (0, 32)[: 1 + place % 2]:
            side, label = int(random.integers(18, 29)), int(random.integers(2))
            x, y = left + int(random.integers(0, 32 - side + 1)), int(random.integers(0, SIDE - side + 1))
            pixels[y : y + side, x : x + side] = (230, 20, 20) if label == 0 else (20, 20, 230)
            annotations.append({"image_id": place, "category_id": label, "bbox": [x, y, side, side]})
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{place}.png")
        images.append({"id": place, "file_name": f"{place}.png", "width": SIDE, "height": SIDE})
    categories = [{"id": 0, "name": "red"}, {"id": 1, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Pruned, decomposed, distilled and quantised, for all three runtimes."""
    folder = tmp_path_factory.mktemp("detection")
    write_coco(folder)
    content = {
        "name": "boxes",
        "model": {"factory": "tests.integration.test_detection:build"},
        "task": {"name": "detection", "strides": list(STRIDES), "mosaic": 0.3},
        "data": {
            "source": "coco",
            "path": str(folder),
            "labels_path": str(folder / "boxes.json"),
            "input": {"height": SIDE, "width": SIDE, "resize": "letterbox"},
            "split": {"validation": 0.2, "test": 0.2},
        },
        "finetune": {"epochs": 16, "learning_rate": 0.01, "freeze_epochs": 0, "batch_size": 8, "shift": 0.1},
        "compress": [
            {"technique": "prune", "ratio": 0.2, "round_to": 4, "recover": {"epochs": 2, "learning_rate": 0.003}},
            {"technique": "decompose", "energy": 0.99, "recover": {"epochs": 1}},
            {"technique": "distil", "epochs": 1, "learning_rate": 0.003},
            {"technique": "quantise", "calibration": {"samples": 24}, "qat": {"epochs": 1}},
        ],
        "convert": {"original": False, "parity": {"samples": 8, "cosine": 0.9, "snr_db": 5, "agreement": 0}},
        "bench": {"repeats": 2, "warmups": 1, "attempts": 1},
        "budget": {"quality_drop": 1.0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return run(folder / "recipe.yaml", runs=folder / "runs"), folder / "runs" / "boxes"


def test_every_file_finds_what_is_there(finished):
    trial, _ = finished
    _, baseline = trial.baseline
    assert {file.artifact.runtime for file in trial.files} == set(CONVERTERS)
    for file in trial.files:
        assert file.artifact.precision == "int8"
        assert file.quality["mean_average_precision_50"] > baseline + 0.2
        assert file.quality_drop < 0.15


def test_the_score_threshold_is_chosen_on_the_validation_side_and_written_beside_each_file(finished):
    _, folder = finished
    for path in (folder / "files").glob("*.json"):
        decoding = load_artifact(path)[0].decoding
        assert decoding == DetectionDecoding(iou_threshold=0.6, score_threshold=decoding.score_threshold)
        assert decoding.score_threshold not in (0, 0.25, 1)


def test_the_page_of_errors_shows_pictures_with_boxes(finished):
    _, folder = finished
    page = (folder / "errors.html").read_text()
    assert "is (green) " in page
    assert "precision at an overlap of 50 %" in page


# --- single files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A checkpoint of an untrained detector whose scores spread, and a context."""
    folder = tmp_path_factory.mktemp("single")
    torch.manual_seed(0)
    made = task(DetectionOptions(strides=STRIDES)).fitted(LABELS, np.zeros((1, 1, 5)), PREPROCESS)
    architecture = Architecture(
        factory="tests.integration.test_detection:build",
        arguments={"side": SIZE, "labels": len(LABELS)},
        outputs=made.outputs(LABELS, PREPROCESS),
        height=SIZE,
        width_pixels=SIZE,
    )
    network = build_network(architecture).train()
    with torch.no_grad():
        for boxes, labels in zip(network.head.boxes, network.head.labels, strict=True):
            boxes.output.weight.normal_(std=0.2)
            labels.output.weight.normal_(std=1.0)
            labels.output.bias.zero_()
        for _ in range(10):
            network(torch.from_numpy(TinyPictures().inputs("train", 0, 48)))
    info = CheckpointInfo(
        architecture=architecture,
        task="detection",
        labels=LABELS,
        preprocess=PREPROCESS,
        decoding=made.decoding,
        quantisation=Quantisation(calibration=CalibrationSet(samples=16)),
    )
    context = replace(tiny_context(folder), task=made)
    return Checkpoint.save(folder / "checkpoint", network.eval(), info), context


def parts_of(case, runtime, folder):
    """Boxes and scores of the file, and of PyTorch, [N, points, 4] and [N, points, labels], and its description."""
    checkpoint, context = case
    artifact = converter(runtime)(checkpoint, context, folder, "file")
    samples = TinyPictures().inputs("validation", 0, 16)
    session = runtime_module(runtime).load(folder / f"file{SUFFIXES[runtime]}", threads=1)
    with torch.no_grad():
        real = checkpoint.load()(torch.from_numpy(samples)).numpy()
    return context.task.parts(run_samples(session, samples)), context.task.parts(real), artifact


@pytest.mark.parametrize("runtime", CONVERTERS)
def test_boxes_and_scores_survive_int8(case, runtime, tmp_path):
    """The last step is in float: on an int8 grid there would be 256 numbers for all boxes."""
    (boxes, ours), (real_boxes, real), artifact = parts_of(case, runtime, tmp_path)
    assert np.abs(boxes - real_boxes).mean() < 0.03 * real_boxes.std()
    assert len(np.unique(boxes)) > 300
    assert real.std() > 0.05
    assert np.abs(ours - real).max() < 0.15
    assert len(np.unique(ours)) > 50
    assert [spec.shape for spec in artifact.outputs] == [(1, *boxes.shape[1:]), (1, *ours.shape[1:])]
    assert {spec.dtype for spec in artifact.outputs} == {"float32"}


class Joined(type(task("detection"))):
    """The trap: one output for boxes and scores, all of it quantised."""

    def exported(self, network, preprocess):
        return network


def test_scores_do_not_survive_int8_under_one_scale_with_the_boxes(case, tmp_path, monkeypatch):
    """What the test above would miss if its network were too easy."""
    checkpoint, context = case
    monkeypatch.setattr(layers, "IN_FLOAT", frozenset())
    monkeypatch.setattr("phonefit.pipeline.convert.onnx.IN_FLOAT", frozenset())
    made = Joined(context.task.options, context.task.labels, context.task.size)
    unread = checkpoint.info.model_copy(update={"decoding": None})  # which would want two outputs
    source = Checkpoint.save(tmp_path / "joined", checkpoint.load(), unread)
    (_, trapped), _, _ = parts_of((source, replace(context, task=made)), "onnx", tmp_path)
    assert len(np.unique(trapped)) < 20


def test_suppression_inside_an_onnx_file_is_what_the_reference_says(case, tmp_path):
    checkpoint, context = case
    inside = context.task.options.model_copy(update={"nms": "inside", "iou_threshold": 0.3})
    context = replace(context, task=replace(context.task, options=inside))
    for precision in ("fp32", "int8"):
        info = checkpoint.info.model_copy(update={} if precision == "int8" else {"quantisation": None})
        source = Checkpoint.save(tmp_path / precision, checkpoint.load(), info)
        artifact = converter("onnx")(source, context, tmp_path, precision)
        assert [len(spec.shape) for spec in artifact.outputs] == [3, 3]
        path = tmp_path / f"{precision}.onnx"
        assert b"NonMaxSuppression" in path.read_bytes()
        assert measure_parity(path, "onnx", source, context, 8).cosine > 0.98
        session = runtime_module("onnx").load(path, threads=1)
        joined = run_samples(session, TinyPictures().inputs("validation", 0, 8))
        np.testing.assert_allclose(context.task.as_exported(joined), joined, atol=1e-6)
        assert (context.task.parts(joined)[1] == 0).mean() > 0.1
