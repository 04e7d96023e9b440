"""Classification: one label of several."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phonefit.models.tasks.task import Floats

if TYPE_CHECKING:
    from torch import Tensor


class Classification:
    """Softmax over labels. Outputs are logits."""

    name = "classification"
    quality = "accuracy"

    def outputs(self, labels: Sequence[str]) -> int:
        """One logit for each label."""
        return len(labels)

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Cross entropy, weighted by class where weights are given."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, weight=class_weights)

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """KL divergence of softened outputs, times T^2 (Hinton et al. 2015, arXiv 1503.02531)."""
        from torch.nn import functional

        log_student = functional.log_softmax(student / temperature, dim=1)
        log_teacher = functional.log_softmax(teacher / temperature, dim=1)
        return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2

    def metrics(self, outputs: Floats, targets: NDArray[np.int64]) -> Mapping[str, float]:
        """Accuracy, and the mean over the classes present of each class's accuracy."""
        correct = self.decisions(outputs) == targets
        by_class = [float(correct[targets == label].mean()) for label in np.unique(targets)]
        return {"accuracy": float(correct.mean()), "balanced_accuracy": float(np.mean(by_class))}

    def decisions(self, outputs: Floats) -> NDArray[np.int64]:
        """Index of the largest logit."""
        indices: NDArray[np.int64] = outputs.argmax(axis=1).astype(np.int64)
        return indices
