"""Regression: a number for each picture, such as an age in years."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import Decoding, RegressionDecoding
from phonefit.models.errors import DataError
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.options import RegressionOptions
from phonefit.models.tasks.resampling import bootstrap_interval
from phonefit.models.tasks.task import Floats, Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor

SAME = 0.25
"""Two answers are the same to a person when they differ by at most this share of the numbers' standard deviation."""
DEFAULT = RegressionOptions()


@dataclass(frozen=True)
class Regression(Task):
    """One number. Outputs: what `options.loss` needs; see `RegressionDecoding` for how they become the number.

    Attributes:
        scale, offset: number = scale x what the outputs say + offset.
        deviation: standard deviation of the training numbers.
    """

    options: RegressionOptions = DEFAULT
    scale: float = 1.0
    offset: float = 0.0
    deviation: float = 1.0

    name = "regression"
    target = "number"
    quality = "mean_absolute_error"
    better = "lower"

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Of the numbers."""
        return self.options.unit

    @property
    def decoding(self) -> Decoding:
        """Scale, offset and range."""
        readings = {"expectation": "expected_index", "ordinal": "expected_count"}
        return RegressionDecoding.model_validate(
            {
                "reads": readings.get(self.options.loss, "output"),
                "scale": self.scale,
                "offset": self.offset,
                "minimum": self.options.minimum,
                "maximum": self.options.maximum,
                "unit": self.options.unit,
            }
        )

    def fitted(self, labels: Sequence[str], targets: Targets, preprocess: Preprocess) -> Self:
        """With scale and offset from the training numbers: mean and deviation, or the ends of the bins."""
        low, high, deviation = float(targets.min()), float(targets.max()), float(targets.std(dtype=np.float64))
        if low == high:
            raise DataError(f"every picture of the training side has the number {low:g}; there is nothing to learn")
        if self.options.loss in ("l1", "huber"):
            return replace(self, scale=deviation, offset=float(targets.mean(dtype=np.float64)), deviation=deviation)
        first = low if self.options.minimum is None else self.options.minimum
        last = high if self.options.maximum is None else self.options.maximum
        if first >= last:
            raise DataError(f"the range of the task, {first:g} to {last:g}, is empty; set minimum and maximum")
        return replace(self, scale=(last - first) / (self.options.bins - 1), offset=first, deviation=deviation)

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """One; a logit for each bin (expectation) or for each step between bins (ordinal)."""
        return {"expectation": self.options.bins, "ordinal": self.options.bins - 1}.get(self.options.loss, 1)

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Of the numbers on the scale of the outputs."""
        from torch import arange, stack
        from torch.nn import functional

        wanted = (targets.to(outputs.dtype) - self.offset) / self.scale
        if self.options.loss == "l1":
            return functional.l1_loss(outputs[:, 0], wanted)
        if self.options.loss == "huber":
            return functional.huber_loss(outputs[:, 0], wanted)
        wanted = wanted.clamp(0, self.options.bins - 1)
        if self.options.loss == "ordinal":
            steps = arange(self.options.bins - 1, device=wanted.device)
            # a number between two steps is a part of the step, so that the sum of the steps is the number
            return functional.binary_cross_entropy_with_logits(outputs, (wanted[:, None] - steps).clamp(0, 1))
        lower = wanted.floor().clamp(max=self.options.bins - 2)
        share = wanted - lower  # of the bin above; the rest is of the bin below, so that their mean is the number
        logs = functional.log_softmax(outputs, dim=1)
        below, above = (logs.gather(1, (lower.long() + step)[:, None])[:, 0] for step in (0, 1))
        return -stack([(1 - share) * below, share * above]).sum(0).mean()

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """Half the squared difference of one output; divergence of the softened distributions of several."""
        from phonefit.models.tasks.losses import sigmoid_divergence, softmax_divergence

        if self.options.loss == "expectation":
            return softmax_divergence(student, teacher, temperature)
        if self.options.loss == "ordinal":
            return sigmoid_divergence(student, teacher, temperature)
        return super().distillation_loss(student, teacher, temperature)

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Mean absolute error and root of the mean squared error, in the numbers' unit."""
        return _metrics(self.decode(outputs), targets)

    def interval(self, outputs: Floats, targets: Targets) -> tuple[float, float]:
        """Of the mean absolute error, by the bootstrap."""
        errors = _errors(self.decode(outputs), targets)
        return bootstrap_interval(lambda rows: float(errors[rows].mean()), len(errors))

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """Always the median of the training numbers: no other constant has a smaller mean absolute error there."""
        return "always the median", _metrics(np.full(len(targets), np.median(train), dtype=np.float32), targets)

    def decode(self, outputs: Floats) -> Floats:
        """The numbers: float32 [N]."""
        read = outputs.astype(np.float64)
        if self.options.loss == "expectation":
            shares = np.exp(read - read.max(axis=1, keepdims=True))
            read = (shares * np.arange(shares.shape[1])).sum(axis=1) / shares.sum(axis=1)
        elif self.options.loss == "ordinal":
            read = (1 / (1 + np.exp(-read))).sum(axis=1)
        else:
            read = read[:, 0]
        numbers = np.clip(self.scale * read + self.offset, self.options.minimum, self.options.maximum)
        return numbers.astype(np.float32)

    def agree(self, outputs: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether the numbers differ by at most `SAME` of the training numbers' deviation."""
        difference = np.abs(self.decode(outputs) - self.decode(others))
        close: NDArray[np.bool_] = difference <= SAME * self.deviation
        return close


def _errors(numbers: Floats, targets: Targets) -> NDArray[np.float64]:
    return np.abs(numbers.astype(np.float64) - targets)


def _metrics(numbers: Floats, targets: Targets) -> Metrics:
    errors = _errors(numbers, targets)
    return {
        "mean_absolute_error": float(errors.mean()),
        "root_mean_squared_error": float(np.sqrt(np.square(errors).mean())),
    }
