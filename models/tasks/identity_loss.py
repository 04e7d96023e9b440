"""Losses over identities, for embeddings. Imports torch: tasks import this module inside their functions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def centres(outputs: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum of the directions of each identity's embeddings: float32 [count, D].

    Args:
        outputs: float32 [N, D].
        rows: int64 [N], 0..count - 1: which identity each is of.
    """
    units = functional.normalize(outputs, dim=1)
    return units.new_zeros(count, units.shape[1]).index_add(0, rows, units)


def identity_loss(outputs: Tensor, rows: Tensor, vectors: Tensor, scale: float, margin: float) -> Tensor:
    """Mean cross entropy over identities of scale x cosine, with an angle added for the right one.

    ArcFace (Deng et al. 2019, arXiv 1801.07698); with a margin of 0 the softmax of NormFace (Wang et al. 2017,
    arXiv 1704.06369). From an angle of pi - margin, where adding to it would raise the cosine again, the cosine is
    lowered by a constant instead, as in the authors' code.

    Args:
        outputs: float32 [N, D].
        rows: int64 [N], the row of `vectors` that each is of.
        vectors: float32 [identities, D]; lengths mean nothing, here as in `outputs`.
        margin: in radians.
    """
    cosine = functional.linear(functional.normalize(outputs, dim=1), functional.normalize(vectors, dim=1))
    if margin > 0:
        right = cosine.gather(1, rows[:, None])
        sine = (1 - right.square()).clamp(min=1e-6).sqrt()  # its gradient is infinite at an angle of 0
        added = right * math.cos(margin) - sine * math.sin(margin)
        lowered = right - margin * math.sin(margin)
        cosine = cosine.scatter(1, rows[:, None], torch.where(right > -math.cos(margin), added, lowered))
    return functional.cross_entropy(scale * cosine, rows)


class IdentityLoss(nn.Module):
    """`identity_loss` with vectors that learn.

    Attributes:
        vectors: float32 [identities, D].
    """

    known: Tensor

    def __init__(self, vectors: Tensor, known: Tensor, scale: float, margin: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone())
        self.register_buffer("known", known)  # the identities, rising: int64 [identities]
        self.scale, self.margin = scale, margin

    def forward(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
        """Mean loss of embeddings float32 [N, D] of identities int64 [N], each among `known`."""
        rows = torch.searchsorted(self.known, targets)
        return identity_loss(outputs, rows, self.vectors, self.scale, self.margin)
