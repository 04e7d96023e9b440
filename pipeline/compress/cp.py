"""CP of a convolution's weights, with a guard against diverging components."""

import math

import torch
from torch import Tensor

from phonefit.pipeline.compress.low_rank import low_rank

ITERATIONS = 60
TOLERANCE = 1e-6  # change of the relative error
DAMPING = (0.0, 1e-3)  # added to the normal equations of a tensor of norm 1, tried in turn
NORM_LIMIT = 10.0
"""Components of a larger norm than the tensor's by this factor cancel each other: small changes of the weights then
change the outputs much, and training does not recover (Phan et al. 2020, arXiv 2008.05441)."""


def cp_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Factors [outputs, rank], [inputs, rank], [kh, rank] and [kw, rank] by alternating least squares.

    `weight` is float64 [outputs, inputs, kh, kw]. It is first brought to at most `rank` outputs and inputs, which a
    tensor of that rank has at most anyway (CANDELINC, Carroll et al. 1980). A component's norm is spread evenly.

    Returns:
        None where the components diverge or come no nearer than zero does.
    """
    import tensorly
    from tensorly.decomposition import parafac

    size = weight.norm()
    out = _basis(weight.flatten(1), rank)
    into = _basis(weight.movedim(1, 0).flatten(1), rank)
    core = torch.einsum("oihw,oa,ib->abhw", weight, out, into) / size
    for damping in DAMPING:
        with tensorly.backend_context("pytorch", local_threadsafe=True):
            try:
                _, found = parafac(
                    core, rank, n_iter_max=ITERATIONS, init="svd", tol=TOLERANCE, l2_reg=damping, random_state=0
                )
            except RuntimeError:  # torch.linalg: singular normal equations
                continue
        norms = torch.stack([factor.norm(dim=0) for factor in found])
        strength = norms.prod(dim=0)
        rebuilt = torch.einsum("ar,br,hr,wr->abhw", *found)
        error = float((rebuilt - core).norm() / core.norm())
        if not math.isfinite(error) or error >= 1 or float(strength.norm()) > NORM_LIMIT:
            continue
        even = (strength * size) ** 0.25 / norms.clamp(min=torch.finfo(norms.dtype).tiny)
        last, first, rows, columns = (factor * scale for factor, scale in zip(found, even, strict=True))
        return out @ last, into @ first, rows, columns
    return None


def _basis(matrix: Tensor, rank: int) -> Tensor:
    """Orthonormal columns that hold the most of `matrix`: [rows, at most rank]."""
    if matrix.shape[0] > matrix.shape[1]:
        return torch.eye(matrix.shape[0], dtype=matrix.dtype)
    return low_rank(matrix).left[:, :rank]
