"""What a model's outputs mean, as its decoding record says. The reference that the Android app is held against.

Outputs come without the batch dimension and as real values (dequantised). Everything is computed in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phonefit.models.boxes import corners_of, found
from phonefit.models.data.preprocess import region
from phonefit.models.decoding import (
    DetectionDecoding,
    EmbeddingDecoding,
    MultiLabelDecoding,
    RegressionDecoding,
    StyleDecoding,
)
from phonefit.models.spec import Layout, Preprocess
from phonefit.models.tasks.task import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """One found object.

    Attributes:
        label: index into the artifact's labels.
        score: 0..1.
        box: left, top, right, bottom in pixels of the photo, within it.
    """

    label: int
    score: float
    box: tuple[float, float, float, float]


def probabilities(logits: Floats) -> Doubles:
    """Softmax: [labels] -> float64 [labels], of sum 1."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    values: Doubles = shifted / shifted.sum()
    return values


def number(output: Floats, decoding: RegressionDecoding) -> float:
    """The number in `decoding.unit`: [1], [bins] or [steps], as `decoding.reads` says -> scalar."""
    values = output.reshape(-1).astype(np.float64)
    if decoding.reads == "expected_index":
        values = (probabilities(output.reshape(-1)) * np.arange(len(values))).sum(keepdims=True)
    elif decoding.reads == "expected_count":
        values = (1.0 / (1.0 + np.exp(-values))).sum(keepdims=True)
    (value,) = values
    real = decoding.scale * float(value) + decoding.offset
    if decoding.minimum is not None:
        real = max(real, decoding.minimum)
    if decoding.maximum is not None:
        real = min(real, decoding.maximum)
    return real


def present_labels(logits: Floats, decoding: MultiLabelDecoding) -> tuple[Doubles, NDArray[np.bool_]]:
    """Probability of each label, float64 [labels], and whether it reaches its threshold, bool [labels]."""
    values = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return values, values >= np.asarray(decoding.thresholds)


def detections(
    boxes: Floats, scores: Floats, decoding: DetectionDecoding, preprocess: Preprocess, photo: tuple[int, int]
) -> list[Detection]:
    """The objects found in a photo, by falling score; equal scores by label, then by row.

    Each label has its own greedy non-maximum suppression: from the highest score down (equal scores by row), a box
    stays unless its overlap (intersection over union) with one that stayed is above the threshold.

    Args:
        boxes: float32 [N, 4], centre x, centre y, width, height in pixels of the input.
        scores: float32 [N, labels].
        photo: width and height of the photo in pixels, before preprocessing.
    """
    corners = corners_of(boxes.astype(np.float64))
    return [
        Detection(label, score, _on_photo(corners[row], preprocess, photo))
        for score, label, row in found(corners, scores.astype(np.float64), decoding)
    ]


def _on_photo(corners: Doubles, preprocess: Preprocess, photo: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom from pixels of the input to pixels of the photo, cut off at its edges."""
    width, height = photo
    left, top, right, bottom = region(width, height, preprocess)
    across, down = (right - left) / preprocess.width, (bottom - top) / preprocess.height

    def x(value: float) -> float:
        return min(max(left + value * across, 0.0), float(width))

    def y(value: float) -> float:
        return min(max(top + value * down, 0.0), float(height))

    return x(float(corners[0])), y(float(corners[1])), x(float(corners[2])), y(float(corners[3]))


def unit_vector(output: Floats) -> Doubles:
    """[D] -> float64 [D] of length 1; zeros stay zeros."""
    values = output.astype(np.float64)
    length = float(np.sqrt((values * values).sum()))
    return values / length if length > 0 else values


def cosine(first: Doubles, second: Doubles) -> float:
    """Cosine of the angle between two unit vectors, -1..1."""
    return float(np.clip((first * second).sum(), -1.0, 1.0))


def is_same(first: Doubles, second: Doubles, decoding: EmbeddingDecoding) -> bool:
    """Whether two unit vectors are of the same person or thing."""
    return cosine(first, second) >= decoding.threshold


def picture(output: Floats, layout: Layout, decoding: StyleDecoding) -> NDArray[np.uint8]:
    """A picture, uint8 RGB [height, width, 3], from [3, height, width] ("NCHW") or [height, width, 3] ("NHWC")."""
    values = output.astype(np.float64)
    if layout == "NCHW":
        values = values.transpose(1, 2, 0)
    return np.clip(np.rint(values * decoding.scale + decoding.offset), 0, 255).astype(np.uint8)
