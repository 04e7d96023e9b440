"""Multi-label classification: any number of labels, each with its own threshold. Moderation is this."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import Decoding, MultiLabelDecoding
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.options import MultiLabelOptions
from phonefit.models.tasks.resampling import bootstrap_interval
from phonefit.models.tasks.task import Floats, Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = MultiLabelOptions()


@dataclass(frozen=True)
class MultiLabel(Task):
    """A probability for each label. Outputs are logits float32 [N, labels].

    Attributes:
        labels: names, once it is fitted.
        thresholds: probability from which a label is told, one for each label.
    """

    options: MultiLabelOptions = DEFAULT
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()

    name = "multi_label"
    target = "labels"
    quality = "mean_average_precision"

    @property
    def decoding(self) -> Decoding:
        """The thresholds."""
        return MultiLabelDecoding(thresholds=self.thresholds)

    def fitted(self, labels: Sequence[str], targets: Targets, preprocess: Preprocess) -> Self:
        """With the labels' names, and thresholds of one half until they are chosen."""
        return replace(self, labels=tuple(labels), thresholds=(0.5,) * len(labels))

    def calibrated(self, outputs: Floats, targets: Targets) -> Self:
        """With the highest thresholds that reach the wanted recall; where a label has no picture, it stays."""
        scores = _probabilities(outputs)
        chosen = list(self.thresholds)
        for label, present in enumerate((targets > 0.5).T):
            if present.any():
                own = np.sort(scores[present, label])[::-1]
                needed = int(np.ceil(self.options.recall * len(own) - 1e-9))
                chosen[label] = float(own[needed - 1])
        return replace(self, thresholds=tuple(chosen))

    def read_by(self, decoding: Decoding) -> Self:
        """With the record's thresholds."""
        assert isinstance(decoding, MultiLabelDecoding)
        return replace(self, thresholds=decoding.thresholds)

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """One logit for each label."""
        return len(labels)

    def class_weights(self, labels: Sequence[str], targets: Targets) -> Floats:
        """Pictures without a label / pictures with it, for each label: the weight of those with it."""
        present = np.maximum(targets.sum(axis=0), 1).astype(np.float32)
        weights: Floats = ((len(targets) - present) / present).clip(min=1 / len(targets)).astype(np.float32)
        return weights

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Binary cross entropy, summed over the labels, so that it is of the size of a classification's."""
        from torch.nn import functional

        losses = functional.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), pos_weight=class_weights, reduction="none"
        )
        return losses.sum(dim=1).mean()

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """Divergence of the softened probabilities, summed over the labels."""
        from phonefit.models.tasks.losses import sigmoid_divergence

        return sigmoid_divergence(student, teacher, temperature)

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Mean over the labels of the average precision; for each label average precision, and threshold, recall and
        precision with it. A label without a picture on this side counts nowhere.
        """
        found = average_precisions(outputs, targets)
        metrics = {"mean_average_precision": _mean(found)}
        told = self.decode(outputs)
        for label, precision in found.items():
            present, name = targets[:, label] > 0.5, self.labels[label]
            right = float((told[:, label] & present).sum())
            metrics |= {
                f"average_precision/{name}": precision,
                f"threshold/{name}": self.thresholds[label],
                f"recall/{name}": right / float(present.sum()),
                f"precision/{name}": right / float(max(told[:, label].sum(), 1)),
            }
        return metrics

    def interval(self, outputs: Floats, targets: Targets) -> tuple[float, float]:
        """Of the mean average precision, by the bootstrap."""
        return bootstrap_interval(lambda rows: _mean(average_precisions(outputs[rows], targets[rows])), len(targets))

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """The same probabilities for every picture: the average precision of a label is the share that has it."""
        constant = np.zeros((len(targets), len(self.labels)), dtype=np.float32)
        return "the same for every picture", self.metrics(constant, targets)

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """The largest distance of a probability from its threshold, of the labels that are told wrongly."""
        apart = np.abs(_probabilities(outputs) - np.asarray(self.thresholds))
        wrong = self.decode(outputs) != (targets > 0.5)
        largest: Floats = np.where(wrong, apart + 1e-6, 0).max(axis=1).astype(np.float32)
        return largest

    def decode(self, outputs: Floats) -> NDArray[np.bool_]:
        """Whether each label is told: bool [N, labels]."""
        told: NDArray[np.bool_] = _probabilities(outputs) >= np.asarray(self.thresholds)
        return told


def average_precisions(outputs: Floats, targets: Targets) -> dict[int, float]:
    """Label -> sum over its pictures, best first, of precision x gain of recall; of those labels that have a picture.

    Pictures with equal outputs count as one step. The definition of scikit-learn's average_precision_score.
    """
    found = {}
    for label in range(targets.shape[1]):
        present = targets[:, label] > 0.5
        if present.any():
            order = np.argsort(-outputs[:, label], kind="stable")
            values, hits = outputs[order, label], np.cumsum(present[order])
            last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of each run of equal outputs
            gains = np.diff(hits[last], prepend=0) / hits[-1]
            found[label] = float((hits[last] / (last + 1) * gains).sum())
    return found


def _mean(found: dict[int, float]) -> float:
    return float(np.mean(list(found.values()))) if found else 0.0


def _probabilities(outputs: Floats) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-outputs.astype(np.float64)))
