"""Decomposition: layers replaced by low-rank factors."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import in_layers
from phonefit.pipeline.compress.cost import LayerCost, check_layers, check_runs, layer_costs
from phonefit.pipeline.compress.finish import cost_note, train_and_save
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.recipe_steps import DecomposeConfig

ROUND_TO = 8  # ranks that vector units like
TUCKER_ITERATIONS = 5


@dataclass(frozen=True)
class Factors:
    """What a layer is replaced by.

    Attributes:
        error: norm of the difference of the weights, relative to the weight's norm, 0..1.
    """

    layers: nn.Sequential
    ranks: tuple[int, ...]
    error: float


def decompose(
    checkpoint: Checkpoint,
    config: DecomposeConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Replace layers by factors where that saves work, then recover with the parent as teacher.

    Linear layers and 1x1 convolutions become two by a truncated SVD (Denil et al. 2013, arXiv 1306.0543), other
    convolutions three by Tucker-2 (Kim et al. 2016, arXiv 1511.06530). Grouped convolutions stay as they are.

    Raises:
        RecipeError: `keep` names a layer that does not exist.
        ModelError: the network no longer runs.
        TrainingError: the recovery diverges.
    """
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    check_layers(network, config.keep, "decompose: keep")
    with deterministic(context, "decompose"):
        notes = decompose_layers(network, config, layer_costs(network, architecture))
        check_runs(network, architecture, "decompose")
        notes.insert(0, cost_note(checkpoint.load(), network, architecture))
    return train_and_save(network, checkpoint, config, config.recover, context, destination, parent, notes, resume)


def decompose_layers(network: nn.Module, config: DecomposeConfig, costs: dict[str, LayerCost]) -> list[str]:
    """Replace layers of `network` in place; returns notes on what was replaced and what was left alone."""
    replaced: list[str] = []
    left: list[str] = []
    grouped = 0
    for name, cost in costs.items():
        layer = network.get_submodule(name)
        if in_layers(name, config.keep) or type(layer) not in (nn.Conv2d, nn.Linear):
            continue
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            grouped += 1
            continue
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        factors = _factorise(layer, config, cost)
        if factors is None:
            left.append(name)
            continue
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, factors.layers)
        replaced.append(f"{name} rank {'x'.join(map(str, factors.ranks))} error {factors.error:.3f}")
    notes = [f"replaced {len(replaced)} layers: {'; '.join(replaced)}" if replaced else "no layer was replaced"]
    if left:
        notes.append(f"left alone, as factors would not save {config.least_saving:.0%}: {', '.join(left)}")
    if grouped:
        notes.append(f"left alone, as they are grouped or depthwise: {grouped} convolutions")
    return notes


def _factorise(layer: nn.Conv2d | nn.Linear, config: DecomposeConfig, cost: LayerCost) -> Factors | None:
    """Factors of `layer`, or None where they do not save enough."""
    weight = layer.weight.detach().double()
    if not weight.any():
        return None
    allowed = (1 - config.least_saving) * cost.multiply_adds
    if isinstance(layer, nn.Conv2d) and weight.shape[2:].numel() > 1:
        ranks = (_rank(_spectrum(weight, 0), config.energy), _rank(_spectrum(weight, 1), config.energy))
        core = weight.shape[2:].numel()

        def work_of_tucker(out_rank: int, in_rank: int) -> int:
            first, last = cost.positions_in * weight.shape[1] * in_rank, out_rank * weight.shape[0] * cost.positions_out
            return first + out_rank * in_rank * core * cost.positions_out + last

        rounded = (_rounded(ranks[0], weight.shape[0]), _rounded(ranks[1], weight.shape[1]))
        chosen = next((pair for pair in (rounded, ranks) if work_of_tucker(*pair) <= allowed), None)
        return None if chosen is None else _tucker(layer, weight, chosen)
    rank = _rank(_spectrum(weight, 0), config.energy)

    def work_of_pair(rank: int) -> int:  # a 1x1 layer's stride is in its first factor
        return rank * (weight.shape[1] + weight.shape[0]) * cost.positions_out

    candidates = (_rounded(rank, min(weight.shape[:2])), rank)
    single = next((one for one in candidates if work_of_pair(one) <= allowed), None)
    return None if single is None else _pair(layer, weight, single)


def _spectrum(weight: Tensor, mode: int) -> Tensor:
    """Squared singular values of the unfolding along `mode`, largest first: float64 [size of the mode]."""
    unfolded = weight.movedim(mode, 0).flatten(1)
    values: Tensor = torch.linalg.eigvalsh(unfolded @ unfolded.T)
    return values.clamp(min=0).flip(0)


def _rank(squared: Tensor, energy: float) -> int:
    """Fewest values that hold `energy` of the sum."""
    shares = squared.cumsum(0) / squared.sum()
    return min(int((shares < energy).sum()) + 1, len(squared))


def _rounded(rank: int, largest: int) -> int:
    return min(math.ceil(rank / ROUND_TO) * ROUND_TO, largest)


def _pair(layer: nn.Conv2d | nn.Linear, weight: Tensor, rank: int) -> Factors:
    """Two layers, by truncated SVD; each takes the root of the singular values."""
    matrix = weight.flatten(1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    down, up = roots[:, None] * right[:rank], left[:, :rank] * roots
    bias = layer.bias is not None
    first: nn.Module
    last: nn.Module
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        last = nn.Linear(rank, layer.out_features, bias=bias)
    else:
        first = _like(layer, layer.in_channels, rank, bias=False)
        last = nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
        down, up = down[:, :, None, None], up[:, :, None, None]
    _fill([first, last], [down, up], layer)
    error = float(values[rank:].square().sum().sqrt() / values.square().sum().sqrt())
    return Factors(nn.Sequential(first, last), (rank,), error)


def _tucker(layer: nn.Conv2d, weight: Tensor, ranks: tuple[int, int]) -> Factors:
    """Three convolutions: 1x1, the core with the layer's kernel, stride and padding, 1x1."""
    import tensorly
    from tensorly.decomposition import partial_tucker

    with tensorly.backend_context("pytorch", local_threadsafe=True):
        (core, (out_factor, in_factor)), _ = partial_tucker(
            weight, rank=list(ranks), modes=[0, 1], n_iter_max=TUCKER_ITERATIONS, init="svd", random_state=0
        )
    first = nn.Conv2d(layer.in_channels, ranks[1], 1, bias=False)
    middle = _like(layer, ranks[1], ranks[0], bias=False)
    last = nn.Conv2d(ranks[0], layer.out_channels, 1, bias=layer.bias is not None)
    _fill([first, middle, last], [in_factor.T[:, :, None, None], core, out_factor[:, :, None, None]], layer)
    rebuilt = torch.einsum("abhw,oa,ib->oihw", core, out_factor, in_factor)
    error = float((rebuilt - weight).norm() / weight.norm())
    return Factors(nn.Sequential(first, middle, last), ranks, error)


def _like(layer: nn.Conv2d, inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
    """A convolution with the kernel, stride, padding and dilation of `layer`."""
    return nn.Conv2d(
        inputs,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]  # a pair at run time
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )


def _fill(layers: list[nn.Module], weights: list[Tensor], origin: nn.Conv2d | nn.Linear) -> None:
    """Set the weights; the last layer takes the bias of `origin`."""
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            assert isinstance(layer.weight, nn.Parameter)
            layer.weight.copy_(weight)
        if origin.bias is not None:
            assert isinstance(layers[-1].bias, nn.Parameter)
            layers[-1].bias.copy_(origin.bias)
