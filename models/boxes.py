"""Boxes: their corners, overlaps and suppression, and the points of a detector that tell them."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import DetectionDecoding

Doubles = NDArray[np.float64]
SIDES = 4  # numbers of a box


def points_of(height: int, width: int, strides: Sequence[int]) -> NDArray[np.float32]:
    """Centre x, centre y and stride of each point, in pixels: float32 [P, 3], level by level, row by row."""
    rows = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in strides
        for row, column in product(range(height // stride), range(width // stride))
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, 3)


def corners_of(boxes: Doubles) -> Doubles:
    """[…, 4] as centre x, centre y, width, height -> left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlaps(corners: Doubles, others: Doubles) -> Doubles:
    """Intersection over union of each with each: [A, 4] and [B, 4] as corners -> [A, B]; 0 for two empty ones."""
    low = np.maximum(corners[:, None, :2], others[None, :, :2])
    high = np.minimum(corners[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas, other_areas = (np.prod(np.maximum(some[:, 2:] - some[:, :2], 0.0), axis=1) for some in (corners, others))
    union = areas[:, None] + other_areas[None] - common
    shares: Doubles = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def found(corners: Doubles, scores: Doubles, decoding: DetectionDecoding) -> list[tuple[float, int, int]]:
    """(score, label, row) of what the decoding keeps, by falling score; equal scores by label, then by row.

    Args:
        corners: float64 [P, 4].
        scores: float64 [P, labels].
    """
    kept = []
    for label in range(scores.shape[1]):
        column = scores[:, label]
        rows = np.flatnonzero(column >= decoding.score_threshold)
        rows = rows[np.argsort(-column[rows], kind="stable")]
        left = suppressed(corners, rows, decoding.iou_threshold, decoding.most)
        kept += [(-float(column[row]), label, row) for row in left]
    return [(-negative, label, row) for negative, label, row in sorted(kept)[: decoding.most]]


def suppressed(corners: Doubles, rows: NDArray[np.intp], threshold: float, most: int | None = None) -> list[int]:
    """The rows that stay, of rows in falling order of their score: greedy non-maximum suppression, as `overlaps` says.

    Args:
        most: how many are looked for; None: all.
    """
    left, top, right, bottom = corners[rows].T
    areas = np.maximum(right - left, 0.0) * np.maximum(bottom - top, 0.0)
    stays = np.ones(len(rows), dtype=np.bool_)
    kept: list[int] = []
    for place in range(len(rows)):
        if len(kept) == most:
            break
        if not stays[place]:
            continue
        kept.append(int(rows[place]))
        later = slice(place + 1, None)
        width = np.minimum(right[place], right[later]) - np.maximum(left[place], left[later])
        height = np.minimum(bottom[place], bottom[later]) - np.maximum(top[place], top[later])
        common = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        union = areas[place] + areas[later] - common
        shares = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        stays[later] &= shares <= threshold
    return kept
