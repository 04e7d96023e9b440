"""Embedding: a vector for each picture, such that those of one person or thing are near each other. Faces are this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import Decoding, EmbeddingDecoding
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.options import EmbeddingOptions
from phonefit.models.tasks.task import Floats, Metrics, Task
from phonefit.models.tasks.verification import (
    accept_rate,
    accuracy,
    accuracy_interval,
    best_threshold,
    cosines,
    pairs_of,
    unit_rows,
    wrong_by,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT = EmbeddingOptions()
SAME = 0.95
"""Two files see the same in a picture when the cosine of their vectors is at least this: an angle of 18 degrees."""
FALSE_ACCEPTS = (0.01, 0.001)


@dataclass(frozen=True)
class Embedding(Task):
    """A vector; its direction counts. Outputs: float32 [N, options.size]. Targets are identities.

    The quality is the accuracy of verification on pairs, with the threshold that the file carries: it is what a person
    meets, chance is one half, and with few pictures it is steadier than the rate of true accepts at a rare false one.

    Attributes:
        threshold: cosine from which two pictures show the same; None until it is chosen.
    """

    options: EmbeddingOptions = DEFAULT
    threshold: float | None = None

    name = "embedding"
    target = "class"
    quality = "verification_accuracy"
    split_by = "class"

    @property
    def decoding(self) -> Decoding:
        """The threshold."""
        return EmbeddingDecoding() if self.threshold is None else EmbeddingDecoding(threshold=self.threshold)

    def calibrated(self, outputs: Floats, targets: Targets) -> Self:
        """With the threshold of the highest accuracy."""
        pairs = pairs_of(targets)
        return replace(self, threshold=best_threshold(cosines(outputs, pairs), pairs.same))

    def read_by(self, decoding: Decoding) -> Self:
        """With the record's threshold."""
        assert isinstance(decoding, EmbeddingDecoding)
        return replace(self, threshold=decoding.threshold)

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """The length of the vector."""
        return self.options.size

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Cross entropy over the identities present, by the cosine with the mean vector of each.

        Prototypes as in Snell et al. 2017 (arXiv 1703.05175), of the same pictures: no identity need be known before.
        """
        from phonefit.models.tasks.identity_loss import centres, identity_loss

        identities, rows = targets.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        return identity_loss(outputs, rows, centres(outputs, rows, len(identities)), self.options.scale, margin=0.0)

    def learned_loss(self, outputs: "Callable[[], Tensor]", targets: "Tensor") -> "nn.Module":
        """ArcFace or the plain softmax, with a vector for each identity of the training side.

        The vectors start at the identities' mean embeddings, seen from the mean of all: random ones would lead a
        trained network astray, as in the recovery after pruning.
        """
        from phonefit.models.tasks.identity_loss import IdentityLoss, centres

        identities, rows = targets.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        means = centres(outputs(), rows, len(identities)) / rows.bincount()[:, None]
        margin = self.options.margin if self.options.loss == "arcface" else 0.0
        return IdentityLoss(means - means.mean(dim=0), identities, self.options.scale, margin)

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """One minus the cosine: the lengths mean nothing."""
        from torch.nn import functional

        return (1 - functional.cosine_similarity(student, teacher, dim=1)).mean()

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """Accuracy of verification, and the share of same pairs accepted at each of `FALSE_ACCEPTS`.

        The accuracy is at the threshold; where none is chosen, at the best one.
        """
        pairs = pairs_of(targets)
        values = cosines(outputs, pairs)
        threshold = best_threshold(values, pairs.same) if self.threshold is None else self.threshold
        at = {f"tar_at_far_{share:g}": accept_rate(values, pairs.same, share) for share in FALSE_ACCEPTS}
        return {"verification_accuracy": accuracy(values, pairs.same, threshold), **at}

    def interval(self, outputs: Floats, targets: Targets) -> tuple[float, float]:
        """Of the accuracy, by the bootstrap over identities."""
        made = self.calibrated(outputs, targets) if self.threshold is None else self
        assert made.threshold is not None
        return accuracy_interval(outputs, targets, made.threshold)

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """The same answer for every pair is right for one half of them."""
        chances = {f"tar_at_far_{share:g}": share for share in FALSE_ACCEPTS}
        return "the same answer for every pair", {"verification_accuracy": 0.5, **chances}

    def decode(self, outputs: Floats) -> Floats:
        """The vectors, of length 1: float32 [N, size]."""
        return unit_rows(outputs).astype(np.float32)

    def agree(self, outputs: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether the cosine of the two vectors is at least `SAME`."""
        near: NDArray[np.bool_] = (unit_rows(outputs) * unit_rows(others)).sum(axis=1) >= SAME
        return near

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """How far the cosine of a picture's worst pair is on the wrong side of the threshold."""
        pairs = pairs_of(targets)
        made = self.calibrated(outputs, targets) if self.threshold is None else self
        assert made.threshold is not None
        beyond = wrong_by(cosines(outputs, pairs), pairs.same, made.threshold)
        worst = np.zeros(len(targets))
        for rows in (pairs.first, pairs.second):
            np.maximum.at(worst, rows, beyond)
        return worst.astype(np.float32)
