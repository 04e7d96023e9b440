"""DataSet: pictures with their targets from any source, and how they are split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from phonefit.models.targets import Target, TargetKind

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Sample:
    """One labelled picture.

    Attributes:
        name: where it is from, for messages: a path, or "file#index".
        label: what is to be learned of it, of the data set's kind.
        digest: sha256 of the decoded pixels, so that a copy under another name or format is the same picture.
    """

    name: str
    label: Target
    digest: str


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """Labelled pictures in a fixed order.

    Attributes:
        labels: class names, in the order of the model's outputs; what the number is, where it is one.
        samples: the readable pictures, sorted by name.
        unreadable: the others, with the reason.
        read: gives a sample's picture in RGB.
        digest: sha256 over labels and samples: equal for equal content.
        kind: of the samples' labels.
    """

    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    unreadable: tuple[Unreadable, ...]
    read: Callable[[Sample], Image.Image]
    digest: str
    kind: TargetKind = "class"
