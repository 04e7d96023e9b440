"""Chains of layers that stand for one: making them, and the weights that they amount to."""

from typing import Literal

import torch
from torch import Tensor, nn

Axes = Literal["none", "rows", "columns", "both"]


def conv(
    origin: nn.Conv2d | nn.Linear, inputs: int, outputs: int, axes: Axes, groups: int = 1, bias: bool = False
) -> nn.Conv2d | nn.Linear:
    """A layer with random weights that has the kernel, stride, padding and dilation of `origin` along `axes`.

    Along the other axes it looks at one pixel. For a linear layer it is a linear one.
    """
    if isinstance(origin, nn.Linear):
        return nn.Linear(inputs, outputs, bias=bias)
    down, across = axes in ("rows", "both"), axes in ("columns", "both")

    def along(pair: tuple[int, ...], rest: int) -> tuple[int, int]:
        return (pair[0] if down else rest, pair[1] if across else rest)

    padding: str | tuple[int, int] = (0, 0)
    if down or across:
        padding = origin.padding if isinstance(origin.padding, str) else along(origin.padding, 0)
    return nn.Conv2d(
        inputs,
        outputs,
        along(origin.kernel_size, 1),
        along(origin.stride, 1),
        padding,
        along(origin.dilation, 1),
        groups=groups,
        bias=bias,
        padding_mode=origin.padding_mode if down or across else "zeros",
    )


def fill(layers: list[nn.Conv2d | nn.Linear], weights: list[Tensor]) -> None:
    """Set the weights, given as [outputs, inputs, kh, kw]."""
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(weight.reshape(layer.weight.shape))


def effective_weight(chain: nn.Sequential) -> Tensor:
    """Weights of the one layer that computes what `chain` does: float32 [outputs, inputs, kh, kw].

    At most one layer of the chain may have rows and one columns; groups are one channel each.
    """
    total: Tensor | None = None
    for layer in chain:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weight = layer.weight.detach()
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        if total is None:
            total = weight
            continue
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            product = torch.einsum("ahw,aiyx->aihywx", weight[:, 0], total)
        else:
            product = torch.einsum("oahw,aiyx->oihywx", weight, total)
        outputs, inputs, *sizes = product.shape
        total = product.reshape(outputs, inputs, sizes[0] * sizes[1], sizes[2] * sizes[3])
    assert total is not None
    return total


def bias_of(origin: nn.Conv2d | nn.Linear, weight: Tensor, mean: Tensor | None) -> Tensor:
    """Bias with which `weight`, float32 [outputs, inputs, kh, kw], has the mean outputs of `origin`: float32 [outputs].

    Args:
        mean: mean patch of the inputs, float32 [inputs, kh, kw]; None where it is not known: the bias of `origin`.
    """
    bias = torch.zeros(len(weight)) if origin.bias is None else origin.bias.detach().clone()
    if mean is not None:
        difference = origin.weight.detach().flatten(1) - weight.flatten(1)
        bias = bias + difference @ mean.flatten()
    return bias
