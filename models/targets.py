"""What belongs to a picture, to be learned: a class, a number, or any number of labels; one by one and as an array."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TargetKind = Literal["class", "number", "labels", "boxes", "picture"]

SplitBy = Literal["picture", "class"]
"""picture: each picture by itself. class: all pictures of a class, so that other sides have other classes."""

Box = tuple[int, float, float, float, float]
"""Index into the data set's labels, then left, top, right, bottom in the picture's pixels."""

Target = int | float | tuple[int, ...] | tuple[Box, ...]
"""class: index into the data set's labels. number: the number. labels: 1 or 0 for each of the data set's labels. boxes:
those in the picture; none where it shows nothing.
picture: 0, as the picture itself is the target.
"""

Targets = NDArray[np.int64] | NDArray[np.float32] | NDArray[np.uint8]
"""Of many pictures. class: int64 [N]. number: float32 [N]. labels: float32 [N, labels], 0 or 1. boxes:
float32 [N, M, 5], a Box each in pixels of the resized input, rows of -1 where a picture has fewer than M, at least 1.
picture: the pixels themselves, uint8 [N, 3, height, width].
"""


def targets_array(kind: TargetKind, targets: Sequence[Target], labels: int) -> Targets:
    """The array of these targets; `labels` is the number of the data set's labels."""
    if kind == "class":
        return np.array(targets, dtype=np.int64)
    if kind == "boxes":
        boxes = [target for target in targets if isinstance(target, tuple)]
        rows = np.full((len(boxes), max(1, *map(len, boxes)), 5), -1, dtype=np.float32)
        for place, some in enumerate(boxes):
            rows[place, : len(some)] = np.reshape(some, (-1, 5))
        return rows
    shape = (len(targets),) if kind == "number" else (len(targets), labels)
    return np.array(targets, dtype=np.float32).reshape(shape)


def boxes_of(rows: NDArray[np.floating]) -> tuple[Box, ...]:
    """The boxes of rows [M, 5 or more]: label, corners and what may follow; rows of -1 are padding."""
    return tuple(
        (int(label), left, top, right, bottom)
        for label, left, top, right, bottom, *_ in rows.astype(np.float64).tolist()
        if label >= 0
    )


def groups_of(kind: TargetKind, target: Target) -> tuple[int, ...]:
    """Indices of the labels that the picture is one for; a number has one label, which every picture is one for."""
    if kind == "boxes" and isinstance(target, tuple):
        return tuple(sorted({int(np.reshape(box, -1)[0]) for box in target}))
    if isinstance(target, tuple):
        return tuple(index for index, present in enumerate(target) if present)
    return (int(target),) if kind == "class" else (0,)


def rows_by_class(targets: Targets, labels: int) -> list[NDArray[np.intp]]:
    """Rows of each class; where the targets are no classes, all rows as one."""
    if targets.dtype != np.int64:
        return [np.arange(len(targets))]
    return [np.flatnonzero(targets == label) for label in range(labels)]


def target_text(kind: TargetKind, target: Target, labels: Sequence[str]) -> str:
    """A target as a person would write it."""
    if kind == "number":
        return f"{target:g}"
    if kind == "boxes" and isinstance(target, tuple):
        counts = Counter(labels[int(np.reshape(box, -1)[0])] for box in target)
        return ", ".join(f"{count} {label}" for label, count in sorted(counts.items())) or "nothing"
    return "|".join(labels[index] for index in groups_of(kind, target)) or "no label"
