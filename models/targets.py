"""What belongs to a picture, to be learned: a class, a number, or any number of labels; one by one and as an array."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TargetKind = Literal["class", "number", "labels"]

Target = int | float | tuple[int, ...]
"""class: index into the data set's labels. number: the number. labels: 1 or 0 for each of the data set's labels."""

Targets = NDArray[np.int64] | NDArray[np.float32]
"""Of many pictures. class: int64 [N]. number: float32 [N]. labels: float32 [N, labels], 0 or 1."""


def targets_array(kind: TargetKind, targets: Sequence[Target], labels: int) -> Targets:
    """The array of these targets; `labels` is the number of the data set's labels."""
    if kind == "class":
        return np.array(targets, dtype=np.int64)
    shape = (len(targets),) if kind == "number" else (len(targets), labels)
    return np.array(targets, dtype=np.float32).reshape(shape)


def groups_of(kind: TargetKind, target: Target) -> tuple[int, ...]:
    """Indices of the labels that the picture is one for; a number has one label, which every picture is one for."""
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
    return "|".join(labels[index] for index in groups_of(kind, target)) or "no label"
