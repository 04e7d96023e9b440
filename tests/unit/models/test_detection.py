"""Boxes: where they go, which points tell them, what is lost, and what is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from phonefit.models.boxes import corners_of, overlaps, points_of, suppressed
from phonefit.models.data.preprocess import apply, placed_target
from phonefit.models.errors import DataError, ModelError
from phonefit.models.registry import build_network, check_network
from phonefit.models.spec import Architecture, DetectorOptions, Preprocess
from phonefit.models.tasks import task
from phonefit.models.tasks.average_precision import precisions_of
from phonefit.models.tasks.detection import Detection
from phonefit.models.tasks.detection_loss import assigned, detection_loss, giou
from phonefit.models.tasks.mosaic import coloured, mosaic, moved_boxes
from phonefit.models.tasks.options import DetectionOptions
from phonefit.models.weights import initialise
from phonefit.pipeline.augment import moved
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_file import load_recipe
from phonefit.pipeline.recipe_steps import TrainConfig
from tests.tiny import PREPROCESS, SIZE

LABELS = ("car", "person")
RANDOM = np.random.default_rng(0)


def marked(boxes, size=(SIZE, SIZE)):
    """A black picture with white boxes, uint8 [height, width, 3]."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for _, left, top, right, bottom in boxes:
        pixels[round(top) : round(bottom), round(left) : round(right)] = 255
    return pixels


def around(pixels):
    """Corners of what is white."""
    rows, columns = np.nonzero(np.asarray(pixels)[..., 0] > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# --- boxes go where the picture goes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(120, 60), (60, 120), (97, 41)])
def test_boxes_are_where_preprocessing_puts_what_they_are_around(resize, size):
    box = (1, 0.45 * size[0], 0.4 * size[1], 0.6 * size[0], 0.65 * size[1])
    box = (1, *map(float, map(round, box[1:])))
    preprocess = PREPROCESS.model_copy(update={"resize": resize, "height": 64, "width": 96})
    (placed,) = placed_target("boxes", (box,), size, preprocess)
    shown = around(apply(Image.fromarray(marked([box], size)), preprocess))
    np.testing.assert_allclose(placed[1:], shown, atol=1)
    assert placed[0] == 1


def test_a_box_that_is_cropped_away_goes_and_a_touched_one_is_cut():
    preprocess = Preprocess(height=32, width=32, crop_share=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    left, edge = (0, 0.0, 4.0, 10.0, 20.0), (0, 12.0, 4.0, 26.0, 20.0)
    assert placed_target("boxes", (left, edge), (64, 32), preprocess) == ((0, 0.0, 4.0, 10.0, 20.0),)


@pytest.mark.parametrize("flip", ["none", "horizontal", "both"])
def test_boxes_follow_flips_and_shifts(flip):
    boxes = [(0, 10, 8, 22, 16)]
    pixels = torch.from_numpy(marked(boxes))[None].repeat(16, 1, 1, 1)
    targets = torch.tensor([boxes] * 16, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    shown, flips, shifts = moved(pixels, TrainConfig(flip=flip, shift=0.1), generator)
    found = moved_boxes(targets, flips, shifts, (SIZE, SIZE))
    assert [around(picture) for picture in shown] == found[:, 0, 1:].int().tolist()
    assert flips.any().item() == (flip != "none")


def test_boxes_follow_a_mosaic():
    boxes = [[(place % 2, 6.0, 10.0, 26.0, 24.0)] for place in range(8)]
    pixels = torch.stack([torch.from_numpy(marked(some)) for some in boxes])
    mixed, targets = mosaic(pixels, torch.tensor(boxes), 1.0, torch.Generator().manual_seed(3))
    told = [rows[rows[:, 0] >= 0] for rows in targets]
    assert sum(map(len, told)) > 8
    for picture, rows in zip(mixed, told, strict=True):
        for _, left, top, right, bottom in rows.int().tolist():
            assert picture[top:bottom, left:right].float().mean() > 250
    unchanged = mosaic(pixels, torch.tensor(boxes), 0.0, torch.Generator())
    assert torch.equal(unchanged[0], pixels)


def test_colours_change_pictures_and_nothing_else():
    pixels = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(coloured(pixels, 0.3, torch.Generator().manual_seed(0)), pixels)
    assert torch.equal(coloured(pixels, 0.0, torch.Generator()), pixels)


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_giou_is_that_of_the_paper():
    some, others = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3], [4, 0, 6, 2]])
    generalised, plain = giou(some, others)
    torch.testing.assert_close(plain, torch.tensor([1 / 7, 0.0]))
    torch.testing.assert_close(generalised, torch.tensor([1 / 7 - 2 / 9, -4 / 12]))
    np.testing.assert_allclose(overlaps(some[:1].double().numpy(), others[:1].double().numpy()), [[1 / 7]])


def test_points_in_the_middle_of_a_box_tell_it_and_each_point_one_box():
    points = torch.from_numpy(points_of(64, 64, (8, 16)))
    real = torch.tensor([[0.0, 8, 8, 40, 40], [1.0, 30, 30, 60, 60]])
    corners = torch.cat([points[:, :2] - 8, points[:, :2] + 8], dim=1)
    point, box = assigned(corners, torch.full((len(points), 2), 0.1), real, points)
    assert len(set(point.tolist())) == len(point)
    assert set(box.tolist()) == {0, 1}
    inside = (points[point, :2] > real[box, 1:3]).all() and (points[point, :2] < real[box, 3:]).all()
    assert inside


def test_a_picture_without_boxes_has_a_loss_that_only_wants_low_scores():
    points = points_of(32, 32, (16,))
    boxes, empty = torch.ones(1, 4, 4), torch.full((1, 1, 5), -1.0)
    low, high = (detection_loss(boxes, torch.full((1, 4, 2), score), empty, points) for score in (0.01, 0.9))
    assert 0 <= low < high


# --- what is found ----------------------------------------------------------------------------------------------------


def test_average_precision_is_that_of_a_case_by_hand():
    """Two true boxes; the best told one is right, the second nothing, the third right: (1 + 2/3) / 2 on 101 points."""
    true = np.array([[[0, 0, 0, 10, 10], [0, 20, 20, 30, 30]]], np.float32)
    told = np.array([[[0, 0, 0, 10, 10, 0.9], [0, 40, 0, 50, 10, 0.8], [0, 20, 20, 30, 30, 0.7]]], np.float32)
    found = precisions_of(told, true, LABELS).of()
    assert found.shape == (10, 2)
    np.testing.assert_allclose(found[:, 0], (51 * 1 + 50 * 2 / 3) / 101)
    assert np.isnan(found[:, 1]).all()


def test_suppression_keeps_the_best_of_boxes_that_overlap():
    corners = corners_of(np.array([[5.0, 5, 10, 10], [6, 5, 10, 10], [20, 5, 10, 10]]))
    assert suppressed(corners, np.array([1, 0, 2]), 0.5) == [1, 2]
    assert suppressed(corners, np.array([1, 0, 2]), 0.9) == [1, 0, 2]


def test_suppression_leaves_no_box_beside_a_better_one_that_it_overlaps():
    random = np.random.default_rng(0)
    corners, rows = corners_of(random.uniform(0, 20, (60, 4))), random.permutation(60)
    kept = suppressed(corners, rows, 0.3)
    near = overlaps(corners, corners) > 0.3
    order = {int(row): place for place, row in enumerate(rows)}
    for row in range(60):
        better = [other for other in kept if order[other] < order[row] and near[row, other]]
        assert (row in kept) == (not better)
    assert 10 < len(kept) < 50
    assert suppressed(corners, rows, 0.3, most=7) == kept[:7]


def fitted(**options) -> Detection:
    targets = np.zeros((2, 1, 5), np.float32)
    return task(DetectionOptions(**options)).fitted(LABELS, targets, PREPROCESS)


def test_mistakes_count_what_is_missed_and_what_is_not_there():
    made = fitted(strides=(16,))
    outputs = np.zeros((3, 4 * 6), np.float32)
    boxes, scores = made.parts(outputs)
    boxes[:], scores[:] = (4, 4, 4, 4), 0
    boxes[:, 1], scores[:, 1, 1] = (20, 20, 8, 8), 0.9
    joined = np.concatenate([boxes.reshape(3, -1), scores.reshape(3, -1)], axis=1)
    right, wrong_label, nothing = [1, 16, 16, 24, 24], [0, 16, 16, 24, 24], [-1] * 5
    assert made.mistakes(joined, np.array([[right], [wrong_label], [nothing]], np.float32)).tolist() == [0, 2, 1]


def one_box_each(made, *scores):
    """Outputs of a picture for each score, with one box that has it, and targets of just this box."""
    outputs = np.zeros((len(scores), 4 * 6), np.float32)
    outputs[:, :4] = (20, 20, 8, 8)
    outputs[:, 16] = scores
    return outputs, np.array([[[0, 16, 16, 24, 24]]] * len(scores), np.float32)


def test_the_score_threshold_is_that_of_the_best_f1():
    """Right, right, nowhere, right, nowhere by falling score, of 4: F1 is 2/5, 4/6, 4/7, 6/8 and 6/9."""
    made = fitted(strides=(16,))
    outputs, targets = one_box_each(made, 0.9, 0.8, 0.6, 0.4, 0.2)
    targets[2:5:2, :, 1:] -= 16
    targets[4] = -1
    chosen = made.calibrated(outputs, targets)
    assert chosen.decoding.score_threshold == pytest.approx(0.3)
    assert (chosen.decode(outputs)[:, 0, 0] >= 0).tolist() == [True, True, True, True, False]
    assert made.read_by(chosen.decoding).decoding == chosen.decoding
    assert made.read_by(chosen.decoding).calibrated(*one_box_each(made, 0.9, 0.5)).threshold == pytest.approx(0.25)


def test_boxes_of_one_score_are_told_together():
    made = fitted(strides=(16,))
    outputs, targets = one_box_each(made, 0.9, 0.5, 0.5)
    targets[2, :, 1:] -= 16  # all right without this one; F1 of 2/4 for the first, 4/6 for all
    assert made.calibrated(outputs, targets).threshold == pytest.approx(0.25)


def test_a_score_threshold_of_the_recipe_stays():
    made = fitted(strides=(16,), score_threshold=0.7)
    outputs, targets = one_box_each(made, 0.9, 0.5)
    assert made.calibrated(outputs, targets).decoding.score_threshold == 0.7
    record = made.decoding.model_copy(update={"score_threshold": 0.4})
    assert made.read_by(record).calibrated(outputs, targets).decoding == record


@pytest.mark.parametrize("empty", ["nothing is told", "nothing is there"])
def test_without_boxes_the_threshold_is_that_of_every_record(empty):
    made = fitted(strides=(16,))
    outputs, targets = one_box_each(made, 0.9, 0.5)
    (outputs if empty == "nothing is told" else targets)[:] = -1
    assert made.calibrated(outputs, targets).decoding.score_threshold == 0.25


def test_suppression_inside_leaves_the_scores_of_what_stays():
    outside, inside = fitted(strides=(16,)), fitted(strides=(16,), nms="inside")
    boxes = np.array([[[8, 8, 8, 8], [9, 8, 8, 8], [24, 24, 8, 8], [24, 24, 8, 8]]], np.float32)
    scores = np.array([[[0.5, 0.2], [0.9, 0.0], [0.3, 0.0], [0.001, 0.0]]], np.float32)
    joined = np.concatenate([boxes.reshape(1, -1), scores.reshape(1, -1)], axis=1)
    assert outside.as_exported(joined) is joined
    left = inside.parts(inside.as_exported(joined))[1][0]
    np.testing.assert_allclose(left, [[0, 0.2], [0.9, 0], [0.3, 0], [0, 0]], atol=1e-6)
    assert (outside.decode(joined) == inside.decode(inside.as_exported(joined))).all()


def test_targets_without_any_box_cannot_be_learned():
    with pytest.raises(DataError, match="no picture of the training side has a box"):
        task("detection").fitted(LABELS, np.full((3, 1, 5), -1, np.float32), PREPROCESS)


# --- the network ------------------------------------------------------------------------------------------------------


def architecture(family="mobilenet_v2", size=64, strides=(8, 16, 32), width=0.25):
    outputs = len(points_of(size, size, strides)) * (4 + len(LABELS))
    options = DetectorOptions(channels=16, strides=strides)
    return Architecture(family=family, width=width, detector=options, outputs=outputs, height=size, width_pixels=size)


@pytest.mark.parametrize("family", ["efficientnet_lite0", "mobilenet_v2", "resnet18", "vgg11"])
@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32)])
def test_every_family_becomes_a_detector(family, strides):
    asked = architecture(family, strides=strides)
    network = build_network(asked)
    check_network(network, asked)
    boxes = network(torch.zeros(1, 3, 64, 64))[0, : 4 * len(points_of(64, 64, strides))].reshape(-1, 4)
    assert (boxes[:, 2:] >= 0).all()


def test_a_side_that_is_no_multiple_of_the_stride_is_refused():
    with pytest.raises(ModelError, match=r"multiples of 32, got 80x80"):
        build_network(architecture(size=80))


def test_pretrained_weights_fill_the_features():
    asked = architecture("efficientnet_lite0", width=1.0)
    network = build_network(asked)
    before = network.features.stage6[0].body.project.conv.weight.clone()
    assert initialise(network, asked, "pretrained", LABELS).startswith("9")
    assert not torch.equal(network.features.stage6[0].body.project.conv.weight, before)


def test_a_network_of_ones_own_must_end_in_the_decoding():
    with pytest.raises(ModelError, match="a Linear is no detector"):
        replace(fitted()).exported(torch.nn.Linear(1, 1), PREPROCESS)


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.nms=inside"], r"task.nms: executorch, tflite has no operator for it; say outside"),
        (["data.input.height=100"], r"data.input.height: 100 is no multiple of 32, .* say 128"),
        (["task.strides=[8, 32]"], r"strides \[8, 32\]: each must be twice the one before"),
        (["finetune.class_weights=balanced"], "there is nothing to balance"),
        (["data.source=demo"], "the task needs boxes with labels .* sources that do: coco, drawn_signs"),
        (["data.source=coco", "data.path=."], "labels_path is needed for the sources idx and coco"),
    ],
)
def test_what_a_detector_cannot_do_is_refused_when_the_recipe_is_read(overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("detect", overrides)


def test_suppression_inside_and_coarse_strides_are_taken_where_they_can_be_had():
    overrides = ["task.nms=inside", "convert.runtimes=[onnx]", "task.strides=[16]", "data.input.height=80"]
    assert load_recipe("detect", overrides).task.nms == "inside"
