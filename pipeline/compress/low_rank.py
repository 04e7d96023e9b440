"""Best low-rank approximations of a matrix, of its entries or of what it computes from given inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKAGE = 0.05
"""Share of an even spread in the covariance of the inputs: a sample does not show every direction."""


@dataclass(frozen=True)
class LowRank:
    """Approximations left[:, :rank] @ right[:rank] of a matrix [a, b], one for each rank.

    Attributes:
        squared: what each rank adds to the squared norm, largest first: float64 [k].
        left: float64 [a, k].
        right: float64 [k, b].
    """

    squared: Tensor
    left: Tensor
    right: Tensor

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """The factors of that rank, each pair of a column and a row scaled to equal norms."""
        left, right = self.left[:, :rank], self.right[:rank]
        tiny = torch.finfo(torch.float64).tiny
        balance = (right.norm(dim=1).clamp(min=tiny) / left.norm(dim=0).clamp(min=tiny)).sqrt()
        return left * balance, right / balance[:, None]


def low_rank(matrix: Tensor, inputs: Tensor | None = None) -> LowRank:
    """Approximations M' of `matrix` M, float64 [a, b], of least error for each rank.

    Without `inputs` the error is that of the entries (Eckart and Young 1936). With `inputs`, float32 [n, b], centred,
    it is that of the outputs, E |(M - M') x|^2: the singular vectors of M C^(1/2), with C the covariance (Zhang et al.
    2015, arXiv 1505.06798, section 3.1; SVD-LLM, Wang et al. 2024, arXiv 2403.07378).
    """
    rows, columns = matrix.shape
    if rows <= columns:  # the principal directions of the outputs; no inverse is needed
        values, vectors = torch.linalg.eigh(_output_gram(matrix, inputs))
        left = vectors.flip(1)
        return LowRank(values.flip(0).clamp(min=0), left, left.T @ matrix)
    if inputs is None:
        values, vectors = torch.linalg.eigh(matrix.T @ matrix)
        right = vectors.flip(1).T
        return LowRank(values.flip(0).clamp(min=0), matrix @ right.T, right)
    root = torch.linalg.cholesky(_covariance(inputs))
    weighted = matrix @ root
    values, vectors = torch.linalg.eigh(weighted.T @ weighted)
    right = vectors.flip(1).T
    solved = torch.linalg.solve_triangular(root, right, upper=False, left=False)
    return LowRank(values.flip(0).clamp(min=0), weighted @ right.T, solved)


def _even(inputs: Tensor) -> float:
    """Variance of a direction on average; of inputs that never change, 1."""
    return float(inputs.square().mean()) or 1.0


def _output_gram(matrix: Tensor, inputs: Tensor | None) -> Tensor:
    if inputs is None:
        return matrix @ matrix.T
    outputs = inputs @ matrix.T.float()  # samples in single precision: their noise is far above it
    measured = (outputs.T @ outputs).double() / len(inputs)
    return (1 - SHRINKAGE) * measured + SHRINKAGE * _even(inputs) * (matrix @ matrix.T)


def _covariance(inputs: Tensor) -> Tensor:
    measured = (inputs.T @ inputs).double() / len(inputs)
    even = torch.eye(inputs.shape[1], dtype=torch.float64) * _even(inputs)
    return (1 - SHRINKAGE) * measured + SHRINKAGE * even
