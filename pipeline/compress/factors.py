"""What a layer can be replaced by: one function for each method, prepared so that any ranks can be tried cheaply."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from phonefit.pipeline.compress.chain import Axes, bias_of, conv, effective_weight, fill
from phonefit.pipeline.compress.cost import LayerCost
from phonefit.pipeline.compress.cp import cp_factors
from phonefit.pipeline.compress.layer_inputs import LayerInputs
from phonefit.pipeline.compress.low_rank import LowRank, low_rank
from phonefit.pipeline.recipe_steps import FactorMethod

Kind = Literal["linear", "pointwise", "spatial"]
Ranks = tuple[int, ...]
ERROR_ROWS = 512  # patches on which an error is measured


@dataclass(frozen=True)
class Layer:
    """A layer to replace: Linear or ungrouped Conv2d, what it costs, and samples of its inputs if they shall count."""

    name: str
    module: nn.Conv2d | nn.Linear
    cost: LayerCost
    inputs: LayerInputs | None = None

    @cached_property
    def weight(self) -> Tensor:
        """float64 [outputs, inputs, kernel height, kernel width]."""
        weight = self.module.weight.detach().double()
        return weight if weight.ndim == 4 else weight[:, :, None, None]

    @property
    def kind(self) -> Kind:
        """Linear, a convolution of one pixel, or one of more."""
        if isinstance(self.module, nn.Linear):
            return "linear"
        return "spatial" if self.weight.shape[2:].numel() > 1 else "pointwise"

    def error(self, layers: nn.Sequential) -> float:
        """Norm of the difference that `layers` make, relative: of outputs on sampled inputs, else of the weights."""
        whole, other = self.weight.float().flatten(1), effective_weight(layers).flatten(1)
        if self.inputs is None:
            difference, size = (whole - other).norm(), whole.norm()
        else:
            patches = self.inputs.patches[:ERROR_ROWS].flatten(1)
            difference, size = (patches @ (whole - other).T).norm(), (patches @ whole.T).norm()
        return float(difference / size) if size > 0 else 0.0

    def patches(self) -> Tensor | None:
        """float32 [n, inputs x kernel height x kernel width]."""
        return None if self.inputs is None else self.inputs.patches.flatten(1)

    def columns(self) -> Tensor | None:
        """Vertical strips of the patches: float32 [n, inputs, kernel height]."""
        return None if self.inputs is None else self.inputs.patches.movedim(3, 1).flatten(0, 1)

    def pixels(self) -> Tensor | None:
        """float32 [n, inputs]."""
        return None if self.inputs is None else self.inputs.patches.movedim(1, 3).flatten(0, 2)


def _as_they_are(ranks: Ranks) -> Ranks:
    return ranks


@dataclass(frozen=True)
class Factorisation:
    """One layer prepared for one method.

    Attributes:
        spectra: one for each rank: squared singular values, largest first.
        unfoldings: the matrices whose ranks these are, without regard to the inputs.
        stages: (weights, places) of each new layer for given ranks.
        build: the new layers for given ranks; None where the method fails there.
        one_rank: the method has one rank for all spectra: the largest.
        possible: brings ranks down to what they leave each other.
    """

    layer: Layer
    method: FactorMethod
    spectra: tuple[Tensor, ...]
    unfoldings: tuple[Tensor, ...]
    stages: Callable[[Ranks], list[tuple[int, int]]]
    build: Callable[[Ranks], nn.Sequential | None]
    one_rank: bool = False
    possible: Callable[[Ranks], Ranks] = _as_they_are

    def multiply_adds(self, ranks: Ranks) -> int:
        """Multiply-adds of the new layers for one picture."""
        return sum(weights * places for weights, places in self.stages(ranks))

    def parameters(self, ranks: Ranks) -> int:
        """Weights of the new layers."""
        return sum(weights for weights, _ in self.stages(ranks))


def pair(layer: Layer) -> Factorisation:
    """Two layers for a matrix: a truncated SVD (Denil et al. 2013, arXiv 1306.0543)."""
    outputs, inputs = layer.weight.shape[:2]
    matrix, places = layer.weight.flatten(1), layer.cost.positions_out
    found = low_rank(matrix, layer.patches())

    def build(ranks: Ranks) -> nn.Sequential:
        left, right = found.factors(ranks[0])
        return _two(layer, right[:, :, None, None], left[:, :, None, None], ("both", "none"))

    def stages(ranks: Ranks) -> list[tuple[int, int]]:  # a stride is in the first
        return [(ranks[0] * inputs, places), (ranks[0] * outputs, places)]

    return Factorisation(layer, "svd", (found.squared,), (matrix,), stages, build)


def separable(layer: Layer) -> Factorisation:
    """Two convolutions, kx1 and 1xk: a truncated SVD over rows and columns (Jaderberg et al. 2014, arXiv 1405.3866)."""
    outputs, inputs, height, width = layer.weight.shape
    cost = layer.cost
    matrix = layer.weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height)
    strips = layer.columns()
    found = low_rank(matrix, None if strips is None else strips.flatten(1))

    def build(ranks: Ranks) -> nn.Sequential:
        left, right = found.factors(ranks[0])
        first = right.reshape(ranks[0], inputs, height, 1)
        last = left.reshape(outputs, width, ranks[0]).permute(0, 2, 1)[:, :, None]
        return _two(layer, first, last, ("rows", "columns"))

    def stages(ranks: Ranks) -> list[tuple[int, int]]:
        first, last = ranks[0] * inputs * height, ranks[0] * outputs * width
        return [(first, cost.positions_between), (last, cost.positions_out)]

    return Factorisation(layer, "svd", (found.squared,), (matrix,), stages, build)


def tucker(layer: Layer) -> Factorisation:
    """Three convolutions, 1x1, kxk and 1x1: Tucker-2 (Kim et al. 2016, arXiv 1511.06530).

    By a truncated higher-order SVD (De Lathauwer et al. 2000). Ranks: outputs, inputs.
    """
    outputs, inputs, height, width = layer.weight.shape
    cost = layer.cost
    out, into = _modes(layer)

    def build(ranks: Ranks) -> nn.Sequential:
        last, core, first = _core(layer, out, into, ranks)
        layers = [
            conv(layer.module, inputs, ranks[1], "none"),
            conv(layer.module, ranks[1], ranks[0], "both"),
            conv(layer.module, ranks[0], outputs, "none", bias=_has_bias(layer)),
        ]
        return _filled(layer, layers, [first[:, :, None, None], core, last[:, :, None, None]])

    def stages(ranks: Ranks) -> list[tuple[int, int]]:
        core = ranks[0] * ranks[1] * height * width
        return [
            (inputs * ranks[1], cost.positions_in),
            (core, cost.positions_out),
            (ranks[0] * outputs, cost.positions_out),
        ]

    return Factorisation(layer, "tucker", (out.squared, into.squared), _mode_matrices(layer), stages, build)


def tensor_train(layer: Layer) -> Factorisation:
    """Four convolutions, 1x1, kx1, 1xk and 1x1: the cores of a tensor train over inputs, rows, columns and outputs
    (Oseledets 2011, "Tensor-train decomposition", SIAM J. Sci. Comput. 33(5)). A 1x1 of full rank joins its neighbour.
    Ranks: inputs, between rows and columns, outputs.
    """
    outputs, inputs, height, width = layer.weight.shape
    cost = layer.cost
    out, into = _modes(layer)
    middle = layer.weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height)

    def build(ranks: Ranks) -> nn.Sequential:
        last, core, first = _core(layer, out, into, (ranks[2], ranks[0]))
        if ranks[2] == outputs:  # not turned into another basis
            core, last = torch.einsum("oa,aihw->oihw", last, core), torch.eye(outputs, dtype=core.dtype)
        if ranks[0] == inputs:
            core, first = torch.einsum("oahw,ai->oihw", core, first), torch.eye(inputs, dtype=core.dtype)
        matrix = core.permute(0, 3, 1, 2).reshape(ranks[2] * width, ranks[0] * height)
        strips = layer.columns()
        seen = None if strips is None else torch.einsum("nih,ai->nah", strips, first.float()).flatten(1)
        left, right = low_rank(matrix, seen).factors(ranks[1])
        parts = [
            (conv(layer.module, inputs, ranks[0], "none"), first[:, :, None, None]),
            (conv(layer.module, ranks[0], ranks[1], "rows"), right.reshape(ranks[1], ranks[0], height, 1)),
            (
                conv(layer.module, ranks[1], ranks[2], "columns", bias=ranks[2] == outputs and _has_bias(layer)),
                left.reshape(ranks[2], width, ranks[1]).permute(0, 2, 1)[:, :, None],
            ),
            (conv(layer.module, ranks[2], outputs, "none", bias=_has_bias(layer)), last[:, :, None, None]),
        ]
        parts = parts[ranks[0] == inputs : 4 - (ranks[2] == outputs)]
        return _filled(layer, [one for one, _ in parts], [weight for _, weight in parts])

    def stages(ranks: Ranks) -> list[tuple[int, int]]:
        whole = [
            (inputs * ranks[0], cost.positions_in),
            (ranks[0] * ranks[1] * height, cost.positions_between),
            (ranks[1] * ranks[2] * width, cost.positions_out),
            (ranks[2] * outputs, cost.positions_out),
        ]
        return whole[ranks[0] == inputs : 4 - (ranks[2] == outputs)]

    def possible(ranks: Ranks) -> Ranks:
        return ranks[0], min(ranks[1], ranks[0] * height, ranks[2] * width), ranks[2]

    strips = layer.columns()
    between = low_rank(middle, None if strips is None else strips.flatten(1))
    spectra = (into.squared, between.squared, out.squared)
    first, last = _mode_matrices(layer)[::-1]
    return Factorisation(layer, "tensor_train", spectra, (first, middle, last), stages, build, possible=possible)


def cp(layer: Layer) -> Factorisation:
    """Four convolutions, 1x1, depthwise kx1, depthwise 1xk and 1x1: CP (Lebedev et al. 2015, arXiv 1412.6553).

    The factors are of the weights: the inputs count for the bias and for the error only.
    """
    outputs, inputs, height, width = layer.weight.shape
    cost = layer.cost

    def build(ranks: Ranks) -> nn.Sequential | None:
        found = cp_factors(layer.weight, ranks[0])
        if found is None:
            return None
        last, first, rows, columns = found
        layers = [
            conv(layer.module, inputs, ranks[0], "none"),
            conv(layer.module, ranks[0], ranks[0], "rows", groups=ranks[0]),
            conv(layer.module, ranks[0], ranks[0], "columns", groups=ranks[0]),
            conv(layer.module, ranks[0], outputs, "none", bias=_has_bias(layer)),
        ]
        weights = [
            first.T[:, :, None, None],
            rows.T[:, None, :, None],
            columns.T[:, None, None, :],
            last[:, :, None, None],
        ]
        return _filled(layer, layers, weights)

    def stages(ranks: Ranks) -> list[tuple[int, int]]:
        return [
            (inputs * ranks[0], cost.positions_in),
            (ranks[0] * height, cost.positions_between),
            (ranks[0] * width, cost.positions_out),
            (ranks[0] * outputs, cost.positions_out),
        ]

    matrices = _mode_matrices(layer)
    spectra = tuple(low_rank(matrix).squared for matrix in matrices)
    return Factorisation(layer, "cp", spectra, matrices, stages, build, one_rank=True)


Factoriser = Callable[[Layer], Factorisation]

METHODS: dict[FactorMethod, dict[Kind, Factoriser]] = {
    "svd": {"linear": pair, "pointwise": pair, "spatial": separable},
    # of a matrix, Tucker, CP and a tensor train of two cores are all the same two factors
    "tucker": {"linear": pair, "pointwise": pair, "spatial": tucker},
    "cp": {"linear": pair, "pointwise": pair, "spatial": cp},
    "tensor_train": {"linear": pair, "pointwise": pair, "spatial": tensor_train},
}
"""Method -> kind of layer -> the function that prepares it.

A linear layer's tensor train over a reshaped matrix needs reshapes and sums that no convolution of a runtime expresses
without repeating its weights; so a matrix keeps its own two cores, which are those of the SVD.
"""


def _modes(layer: Layer) -> tuple[LowRank, LowRank]:
    """Outputs and inputs of the weights, each reduced alone; the second is [outputs x kh x kw, inputs]."""
    out, into = _mode_matrices(layer)
    return low_rank(out, layer.patches()), low_rank(into, layer.pixels())


def _mode_matrices(layer: Layer) -> tuple[Tensor, Tensor]:
    weight = layer.weight
    return weight.flatten(1), weight.movedim(1, 3).reshape(-1, weight.shape[1])


def _core(layer: Layer, out: LowRank, into: LowRank, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Factors [outputs, r0], [r0, r1, kh, kw] and [r1, inputs], of ranks (outputs, inputs)."""
    _, _, height, width = layer.weight.shape
    rest, first = into.factors(ranks[1])
    if (
        out.left.shape[0] > out.squared.shape[0]
    ):  # more outputs than the kernel has inputs: bring to orthonormal columns
        last = torch.linalg.qr(out.left[:, : ranks[0]])[0]
    else:
        last = out.left[:, : ranks[0]]
    core = torch.einsum("oa,ohwb->abhw", last, rest.reshape(-1, height, width, ranks[1]))
    balance = core.flatten(1).norm(dim=1).clamp(min=torch.finfo(core.dtype).tiny).sqrt()
    return last * balance, core / balance[:, None, None, None], first


def _has_bias(layer: Layer) -> bool:
    """With known inputs, a bias makes up for the mean of what is lost."""
    return layer.module.bias is not None or layer.inputs is not None


def _two(layer: Layer, first: Tensor, last: Tensor, axes: tuple[Axes, Axes]) -> nn.Sequential:
    outputs, inputs, rank = layer.weight.shape[0], layer.weight.shape[1], len(first)
    layers = [
        conv(layer.module, inputs, rank, axes[0]),
        conv(layer.module, rank, outputs, axes[1], bias=_has_bias(layer)),
    ]
    return _filled(layer, layers, [first, last])


def _filled(layer: Layer, layers: list[nn.Conv2d | nn.Linear], weights: list[Tensor]) -> nn.Sequential:
    fill(layers, weights)
    chain = nn.Sequential(*layers)
    last = layers[-1].bias
    if last is not None:
        mean = None if layer.inputs is None else layer.inputs.mean
        with torch.no_grad():
            last.copy_(bias_of(layer.module, effective_weight(chain), mean))
    return chain
