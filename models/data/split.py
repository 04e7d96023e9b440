"""The three-way split, by content: an image never lands on two sides, whatever its name, and never changes sides."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from phonefit.models.data.dataset import SIDES, DataSet, Sample, Side
from phonefit.models.errors import DataError
from phonefit.models.targets import SplitBy, Target, groups_of, target_text


@dataclass(frozen=True)
class Conflict:
    """One picture with several targets: no model can get all of them right.

    Attributes:
        names: the samples that show it.
        labels: the targets that they have, in words.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]


def position(digest: str, seed: int) -> float:
    """Where a picture falls in [0, 1): evenly spread, fixed by its content and the seed alone."""
    return int(hashlib.sha256(f"{seed}:{digest}".encode()).hexdigest()[:13], 16) / 16**13


LEAST_CLASSES = 2
"""On a side that has whole classes: with one there are no different ones to tell apart."""


def split(
    dataset: DataSet, validation: float, test: float, seed: int, by: SplitBy = "picture"
) -> Mapping[Side, tuple[int, ...]]:
    """Indices into `dataset.samples` for each side, in their order.

    A picture's `position` decides: [0, test) is the test side, [test, test + validation) the validation side, the rest
    trains. So shares are met on average, not exactly; copies stay together; and adding or removing pictures moves no
    other. There is one exception, for small classes: when a class would have no picture on a side, the one of its
    pictures whose position is nearest to that side's interval moves there, from a side where another one is left.

    By class, the position of a class's name decides for all its pictures, by the same rules: the sides have different
    classes (an open set), each side at least `LEAST_CLASSES`. A picture of several classes, a conflict, is where the
    first of them is.

    Args:
        dataset: the pictures.
        validation: share of the validation side, in 0..1.
        test: share of the test side, in 0..1.
        seed: another seed gives another split.
        by: what stays together besides copies.

    Raises:
        DataError: too few classes to split by class, or the pictures have none. By picture: a class or label has less
            than three distinct pictures, or shares so many with others that the three sides cannot all have one.
    """
    intervals: dict[Side, tuple[float, float]] = {
        "test": (0.0, test),
        "validation": (test, test + validation),
        "train": (test + validation, 1.0),
    }
    if by == "class":
        return _by_class(dataset, intervals, seed)
    places = {sample.digest: position(sample.digest, seed) for sample in dataset.samples}
    sides = {digest: _side_of(place, intervals) for digest, place in places.items()}
    classes: dict[str, set[int]] = defaultdict(set)  # picture -> its labels; of a class one, unless there is a conflict
    for sample in dataset.samples:
        classes[sample.digest].update(groups_of(dataset.kind, sample.label))
    for label in range(len(dataset.labels)):
        _fill_empty_sides(dataset.labels, label, places, sides, classes, intervals)
    return _indices(dataset, sides)


def _indices(dataset: DataSet, sides: Mapping[str, Side]) -> Mapping[Side, tuple[int, ...]]:
    return {
        side: tuple(index for index, sample in enumerate(dataset.samples) if sides[sample.digest] == side)
        for side in SIDES
    }


def _by_class(
    dataset: DataSet, intervals: Mapping[Side, tuple[float, float]], seed: int
) -> Mapping[Side, tuple[int, ...]]:
    if dataset.kind != "class" or len(dataset.labels) < LEAST_CLASSES * len(SIDES):
        found = f"{len(dataset.labels)} classes" if dataset.kind == "class" else "pictures without classes"
        raise DataError(
            f"a split by class needs at least {LEAST_CLASSES * len(SIDES)} classes, {LEAST_CLASSES} for each side; "
            f"found {found}. Give more, or split by picture: data.split.by=picture"
        )
    places = {label: position(label, seed) for label in dataset.labels}
    sides = {label: _side_of(place, intervals) for label, place in places.items()}
    for side, (start, end) in intervals.items():
        while list(sides.values()).count(side) < LEAST_CLASSES:
            counts = Counter(sides.values())
            movable = [label for label in sides if counts[sides[label]] > LEAST_CLASSES]
            nearest = min(movable, key=lambda label: (max(start - places[label], places[label] - end), label))
            sides[nearest] = side
    first: dict[str, int] = {}
    for sample in dataset.samples:
        (label,) = groups_of(dataset.kind, sample.label)
        first[sample.digest] = min(first.get(sample.digest, label), label)
    return _indices(dataset, {digest: sides[dataset.labels[label]] for digest, label in first.items()})


def first_of_each(dataset: DataSet, indices: Sequence[int], count: int) -> tuple[int, ...]:
    """Of these samples the first `count` of each class or label, in the order of their pictures' digests."""
    taken: Counter[int] = Counter()
    chosen = []
    for index in sorted(indices, key=lambda index: dataset.samples[index].digest):
        groups = groups_of(dataset.kind, dataset.samples[index].label)
        if any(taken[group] < count for group in groups):
            chosen.append(index)
            taken.update(groups)
    return tuple(sorted(chosen))


def find_conflicts(dataset: DataSet) -> tuple[Conflict, ...]:
    """The pictures that appear under more than one label, in the order of their first sample."""
    samples = defaultdict(list)
    for sample in dataset.samples:
        samples[sample.digest].append(sample)
    return tuple(
        Conflict(
            names=tuple(sample.name for sample in same),
            labels=tuple(target_text(dataset.kind, label, dataset.labels) for label in sorted(_targets(same))),
        )
        for same in samples.values()
        if len(_targets(same)) > 1
    )


def _targets(samples: Sequence[Sample]) -> set[Target]:
    return {sample.label for sample in samples}


def _side_of(place: float, intervals: Mapping[Side, tuple[float, float]]) -> Side:
    return next((side for side, (_, end) in intervals.items() if place < end), "train")


def _fill_empty_sides(
    labels: Sequence[str],
    label: int,
    places: Mapping[str, float],
    sides: dict[str, Side],
    classes: Mapping[str, set[int]],
    intervals: Mapping[Side, tuple[float, float]],
) -> None:
    """Move pictures in `sides` until class `label` has one on each side."""
    own = [digest for digest in places if label in classes[digest]]
    if len(own) < len(SIDES):
        raise DataError(
            f"class {labels[label]!r} has {len(own)} distinct pictures; training, validation and test need one each, "
            "so add pictures (copies of the same one do not count) or remove the class"
        )

    def can_leave(digest: str) -> bool:
        """Whether every class of the picture has another one on its side."""
        return all(
            any(sides[other] == sides[digest] and other != digest and of in classes[other] for other in places)
            for of in classes[digest]
        )

    for side in SIDES:
        if any(sides[digest] == side for digest in own):
            continue
        start, end = intervals[side]
        movable = [digest for digest in own if can_leave(digest)]
        if not movable:
            raise DataError(
                f"class {labels[label]!r} shares so many pictures with other classes that it cannot be split; "
                "give each picture one label"
            )
        nearest = min(movable, key=lambda digest: (max(start - places[digest], places[digest] - end), digest))
        sides[nearest] = side
