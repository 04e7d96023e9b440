"""Task: what a model is for. One file per task beside this one; `TASKS` in the package lists them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import Decoding
from phonefit.models.spec import DetectorOptions, Preprocess
from phonefit.models.targets import SplitBy, TargetKind, Targets

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Floats = NDArray[np.float32]
Better = Literal["higher", "lower"]
Metrics = Mapping[str, float]
"""Name -> figure; figures of one label are NAME/LABEL. The ends of a 95 % interval are NAME_low and NAME_high."""

SMALLEST_ERROR = 1e-9
"""Growth is of this where there was no error at all."""


class Task(ABC):
    """Head size, loss, metrics and decoding of one kind of task. Immutable: what it takes from data makes another one.

    `docs/own-task.md` writes one from scratch.
    """

    name: str
    target: TargetKind
    """What a data source must give for each picture."""
    quality: str
    """Name of the metric that counts, a key of what `metrics` returns."""
    better: Better = "higher"
    """Whether more of the quality is better, as of an accuracy, or less, as of an error."""
    unit: str = ""
    """Unit of the quality; empty for a share, which is shown in %."""

    split_by: SplitBy = "picture"
    """What is kept together on one side of the data where the recipe does not say."""

    @property
    def decoding(self) -> Decoding | None:
        """How a file's outputs are read; None for logits of classes."""
        return None

    def fitted(self, labels: Sequence[str], targets: Targets, preprocess: Preprocess) -> Self:
        """The task with what it takes from the training side before training, such as the scale of its numbers.

        Args:
            preprocess: how pictures become the network's input, for tasks that depend on its size.

        Raises:
            DataError: the targets cannot be learned.
        """
        return self

    def calibrated(self, outputs: Floats, targets: Targets) -> Self:
        """The task with what is chosen on the validation side after training, such as thresholds."""
        return self

    def read_by(self, decoding: Decoding) -> Self:
        """The task with what a file's record of its decoding says."""
        return self

    @abstractmethod
    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """Size of the network's output for these labels and inputs of this size."""

    @property
    def detector(self) -> DetectorOptions | None:
        """What is put behind a family's features instead of its head; None: its head stays."""
        return None

    def exported(self, network: "nn.Module", preprocess: Preprocess) -> "nn.Module":
        """The module that is converted: one or several outputs of any shape, here the network itself.

        Flattened and joined in their order, they are what the network gives, [1, outputs], but for `as_exported`. Its
        layers have the names that they have in the network.
        """
        return network

    def as_exported(self, outputs: Floats) -> Floats:
        """Outputs of the network, float32 [N, outputs], as a file gives them where it changes values on purpose."""
        return outputs

    def augmented(self, pixels: "Tensor", targets: "Tensor", generator: "torch.Generator") -> "tuple[Tensor, Tensor]":
        """Random changes of a batch of training pictures that are this task's own, before flips and shifts.

        Args:
            pixels: uint8 [N, height, width, 3].
        """
        return pixels, targets

    def moved(self, targets: "Tensor", flips: "Tensor", shifts: "Tensor") -> "Tensor":
        """The targets of a batch of training pictures that were mirrored and then shifted.

        Args:
            flips: bool [N, 2]: top to bottom, left to right.
            shifts: int64 [N, 2]: pixels down and right.
        """
        return targets

    def shown(self, targets: "Tensor", pixels: "Tensor") -> "Tensor":
        """The targets of a batch of training pictures as they are shown to the network, flipped and shifted.

        Args:
            pixels: uint8 [N, height, width, 3].
        """
        return targets

    @abstractmethod
    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Mean loss of a batch: outputs float32 [N, outputs], targets as in `Targets`."""

    def learned_loss(self, outputs: "Callable[[], Tensor]", targets: "Tensor") -> "nn.Module | None":
        """A loss with parameters of its own, such as a vector for each identity, that training uses in place of `loss`.

        They learn with the network and are no part of it. Called as `loss` is.

        Args:
            outputs: gives those of the network over the training side as it is before training, float32 [N, outputs].
            targets: of the training side.
        """
        return None

    @abstractmethod
    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Metrics of raw outputs float32 [N, outputs]; values in 0..1 where the metric is a share."""

    def interval(self, outputs: Floats, targets: Targets) -> tuple[float, float] | None:
        """Interval of 95 % of the quality; None for an accuracy, where the number of pictures tells it."""
        return None

    @abstractmethod
    def decode(self, outputs: Floats) -> NDArray[np.generic]:
        """What a person is told about each row of raw outputs float32 [N, outputs]: [N] or [N, labels]."""

    @abstractmethod
    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """The best answer that needs no picture, in words, and its metrics on `targets`.

        Args:
            train: targets of the training side, which it is taken from where that knows it.
        """

    def agree(self, outputs: Floats, others: Floats) -> NDArray[np.bool_]:
        """For each row whether a person would be told the same by both: bool [N]."""
        same = self.decode(outputs) == self.decode(others)
        rows: NDArray[np.bool_] = same.reshape(len(same), -1).all(axis=1)
        return rows

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """How wrong each row is, float32 [N], 0 where it is right: the order in which a person is shown pictures."""
        apart = np.abs(self.decode(outputs).astype(np.float32) - targets)
        rows: Floats = apart.reshape(len(apart), -1).sum(axis=1).astype(np.float32)
        return rows

    def class_weights(self, labels: Sequence[str], targets: Targets) -> Floats | None:
        """What `loss` takes to give rare classes or labels the same say, float32 [labels]; None where it means nothing.

        Args:
            targets: of the training side.
        """
        return None

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """Mean distance between the student's and the teacher's outputs, both float32 [N, outputs].

        Here half the mean squared difference, which knows no temperature.
        """
        return (student - teacher).square().mean() / 2


def metrics_with_interval(task: Task, outputs: Floats, targets: Targets) -> Metrics:
    """The metrics, with the interval of the quality where the task has one."""
    interval = task.interval(outputs, targets)
    ends = {} if interval is None else {f"{task.quality}_low": interval[0], f"{task.quality}_high": interval[1]}
    return {**task.metrics(outputs, targets), **ends}


def drop_of(task: Task, before: float, after: float) -> float:
    """What was lost of a quality: `before` - `after` where more is better, the error's growth as a share where less is.

    An error that grows from 4.0 to 4.2 years is a drop of 0.05.
    """
    if task.better == "higher":
        return before - after
    return (after - before) / max(before, SMALLEST_ERROR)


def merit_of(better: Better, quality: float) -> float:
    """A quality as a number of which more is better: itself, or minus an error."""
    return quality if better == "higher" else -quality


def least_quality(task: Task, before: float, drop: float) -> float:
    """The quality that is left after a drop of this size."""
    return before - drop if task.better == "higher" else before * (1 + drop)


def holds(task: Task, quality: float, wanted: float) -> bool:
    """Whether a quality is at least as good as another one."""
    return quality >= wanted if task.better == "higher" else quality <= wanted
