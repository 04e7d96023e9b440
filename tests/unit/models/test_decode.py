"""What outputs mean: cases whose answer is known without the code."""

import numpy as np
import pytest
from pydantic import ValidationError

from phonefit.models.artifact import Artifact
from phonefit.models.decode import (
    cosine,
    detections,
    is_same,
    number,
    picture,
    present_labels,
    probabilities,
    unit_vector,
)
from phonefit.models.decoding import (
    ClassificationDecoding,
    DetectionDecoding,
    EmbeddingDecoding,
    MultiLabelDecoding,
    RegressionDecoding,
    StyleDecoding,
)
from phonefit.models.spec import Preprocess
from tests.golden.test_models import GOLDEN

SQUARE = Preprocess(height=100, width=100, resize="stretch", mean=(0, 0, 0), std=(1, 1, 1))


def floats(*values):
    return np.array(values, dtype=np.float32)


def test_probabilities_of_large_logits():
    assert probabilities(floats(1000, 1000)).tolist() == [0.5, 0.5]
    assert probabilities(floats(np.log(3), 0)).tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(("output", "expected"), [(1.5, 25.0), (-1.0, 18.0), (90.0, 99.0)])
def test_a_number_is_scaled_and_held(output, expected):
    decoding = RegressionDecoding(scale=10, offset=10, minimum=18, maximum=99)
    assert number(floats(output), decoding) == expected


def test_labels_have_thresholds_of_their_own():
    values, present = present_labels(floats(0, 0, -50), MultiLabelDecoding(thresholds=(0.5, 0.6, 0.0)))
    assert values.tolist() == pytest.approx([0.5, 0.5, 0])
    assert present.tolist() == [True, False, True]


def found(boxes, scores, preprocess=SQUARE, photo=(100, 100), **changes):
    return detections(np.float32(boxes), np.float32(scores), DetectionDecoding(**changes), preprocess, photo)


def test_the_best_of_overlapping_boxes_stays_and_other_labels_are_not_its_rivals():
    boxes = [[50, 50, 20, 20], [51, 50, 20, 20], [80, 80, 10, 10]]
    kept = found(boxes, [[0.6, 0.7], [0.9, 0.1], [0.5, 0.0]])
    assert [(one.label, round(one.score, 3)) for one in kept] == [(0, 0.9), (1, 0.7), (0, 0.5)]
    assert kept[0].box == (41, 40, 61, 60)


def test_a_chain_of_boxes_is_suppressed_by_what_stays_only():
    """The second falls to the first, so that the third, which overlaps the second alone, stays."""
    kept = found([[20, 50, 20, 20], [30, 50, 20, 20], [40, 50, 20, 20]], [[0.9], [0.8], [0.7]], iou_threshold=0.3)
    assert [round(one.score, 1) for one in kept] == [0.9, 0.7]


@pytest.mark.parametrize(("threshold", "count"), [(0.33, 1), (0.34, 2)])
def test_overlap_is_intersection_over_union(threshold, count):
    assert len(found([[20, 50, 20, 20], [30, 50, 20, 20]], [[0.9], [0.8]], iou_threshold=threshold)) == count


def test_boxes_without_an_extent_overlap_nothing():
    assert len(found([[50, 50, 0, 0], [50, 50, 0, 0]], [[0.9], [0.9]])) == 2


def test_scores_below_the_threshold_and_beyond_the_number_go():
    boxes = [[10 * place, 50, 5, 5] for place in range(1, 6)]
    scores = [[0.3], [0.5], [0.2], [0.9], [0.5]]
    assert [round(one.score, 1) for one in found(boxes, scores, score_threshold=0.25, most=3)] == [0.9, 0.5, 0.5]
    assert found(boxes, scores, score_threshold=0.95) == []


@pytest.mark.parametrize(
    ("resize", "box"),
    [
        ("stretch", (80, 40, 120, 60)),  # 200x100 to 100x100: two pixels of width to one
        ("letterbox", (80, 30, 120, 70)),  # to 100x50, with grey above and below
        ("crop", (90, 40, 110, 60)),  # the middle 100x100
    ],
)
def test_boxes_come_back_to_the_photo(resize, box):
    preprocess = SQUARE.model_copy(update={"resize": resize, "crop_share": 1.0})
    (one,) = found([[50, 50, 20, 20]], [[0.9]], preprocess=preprocess, photo=(200, 100))
    assert one.box == pytest.approx(box)


def test_boxes_end_at_the_photos_edges():
    (one,) = found([[0, 90, 50, 50]], [[0.9]])
    assert one.box == (0, 65, 25, 100)


def test_vectors_of_the_same_direction_are_the_same():
    first, second = unit_vector(floats(3, 4)), unit_vector(floats(-6, -8))
    assert first.tolist() == pytest.approx([0.6, 0.8])
    assert (cosine(first, first), cosine(first, second)) == pytest.approx((1, -1))
    assert is_same(first, first, EmbeddingDecoding(threshold=0.99))
    assert not is_same(first, second, EmbeddingDecoding(threshold=-0.9))
    assert unit_vector(floats(0, 0)).tolist() == [0, 0]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_picture_is_rounded_to_even_and_held(layout):
    output = floats(-0.1, 0.5, 1.5, 2.5, 254.6, 300).reshape(1, 2, 3)
    arranged = output.transpose(2, 0, 1) if layout == "NCHW" else output
    found = picture(arranged, layout, StyleDecoding(scale=1))
    assert (found.shape, found.dtype) == ((1, 2, 3), np.uint8)
    assert found.reshape(-1).tolist() == [0, 0, 2, 2, 255, 255]


def test_an_old_artifact_is_read_as_a_classification():
    assert Artifact.load(GOLDEN / "artifact_1.json").decoding == ClassificationDecoding()


@pytest.mark.parametrize(
    ("decoding", "problem"),
    [
        ({"kind": "multi_label", "thresholds": [0.5]}, "1 thresholds for 2 labels"),
        ({"kind": "detection"}, "not among the 1 outputs"),
        ({"kind": "detection", "boxes": 0, "scores": 0}, "boxes and scores are both output 0"),
        ({"kind": "regression", "minimum": 2, "maximum": 1}, "minimum 2.0 is above maximum 1.0"),
        ({"kind": "segmentation"}, "does not match any of the expected tags"),
    ],
)
def test_a_decoding_that_does_not_fit_its_artifact(decoding, problem):
    artifact = Artifact.load(GOLDEN / "artifact_1.json")
    with pytest.raises(ValidationError, match=problem):
        Artifact.model_validate(artifact.as_json() | {"decoding": decoding})
