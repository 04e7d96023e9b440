"""Classification: one label of several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.task import Floats, Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor


class Classification(Task):
    """Softmax over labels. Outputs are logits."""

    name = "classification"
    target = "class"
    quality = "accuracy"

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """One logit for each label."""
        return len(labels)

    def class_weights(self, labels: Sequence[str], targets: Targets) -> Floats:
        """N / (classes x count) of each class."""
        counts = np.bincount(targets.astype(np.int64), minlength=len(labels)).clip(min=1).astype(np.float32)
        weights: Floats = np.float32(len(targets)) / (np.float32(len(counts)) * counts)
        return weights

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Cross entropy, weighted by class where weights are given."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, weight=class_weights)

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """KL divergence of softened outputs, times T^2."""
        from phonefit.models.tasks.losses import softmax_divergence

        return softmax_divergence(student, teacher, temperature)

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Accuracy, and the mean over the classes present of each class's accuracy."""
        return _metrics(self.decode(outputs), targets)

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """Always the most frequent class of `targets`: a training side of few pictures may not know which it is."""
        most = int(np.bincount(targets.astype(np.int64)).argmax())
        return "always the most frequent class", _metrics(np.full(len(targets), most), targets)

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """Probability of the label that is told where another one is right."""
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        highest: Floats = 1 / shares.sum(axis=1)
        return np.where(self.decode(outputs) == targets, np.float32(0), highest)

    def decode(self, outputs: Floats) -> NDArray[np.int64]:
        """Index of the largest logit: int64 [N]."""
        indices: NDArray[np.int64] = outputs.argmax(axis=1).astype(np.int64)
        return indices


def _metrics(decided: NDArray[np.int64], targets: Targets) -> Metrics:
    correct = decided == targets
    by_class = [float(correct[targets == label].mean()) for label in np.unique(targets)]
    return {"accuracy": float(correct.mean()), "balanced_accuracy": float(np.mean(by_class))}
