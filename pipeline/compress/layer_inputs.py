"""What layers see: samples of their inputs on calibration pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 2048  # patches kept of each layer
BATCH = 16


@dataclass(frozen=True)
class LayerInputs:
    """Patches of a layer's input, as its kernel meets them.

    Attributes:
        patches: less their mean: float32 [rows, channels, kernel height, kernel width].
        mean: float32 [channels, kernel height, kernel width].
    """

    patches: Tensor
    mean: Tensor


def sample_inputs(network: nn.Module, names: Iterable[str], pictures: Tensor, seed: int) -> dict[str, LayerInputs]:
    """Run `pictures`, float32 [N, 3, height, width], and keep up to `ROWS` random patches for each named layer.

    The layers are Linear or ungrouped Conv2d; one that is called several times gives patches of each call.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = -(-len(pictures) // BATCH)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, layer: nn.Module, inputs: Tensor) -> None:
        with torch.no_grad():
            patches = _vectors(inputs) if isinstance(layer, nn.Linear) else _patches(layer, inputs, batches, generator)
            kept[name].append(patches.float().cpu())

    handles = [
        network.get_submodule(name).register_forward_pre_hook(
            lambda layer, given, name=name: keep(name, layer, given[0])
        )
        for name in kept
    ]
    try:
        with torch.no_grad():
            for start in range(0, len(pictures), BATCH):
                network.eval()(pictures[start : start + BATCH])
    finally:
        for handle in handles:
            handle.remove()
    return {name: _centred(torch.cat(parts), generator) for name, parts in kept.items() if parts}


def _vectors(inputs: Tensor) -> Tensor:
    return inputs.flatten(0, -2)[:, :, None, None]


def _patches(layer: nn.Module, inputs: Tensor, batches: int, generator: torch.Generator) -> Tensor:
    """Patches at random places of the output, the same places in each picture of a batch: [n, C, kh, kw]."""
    assert isinstance(layer, nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    (height, width), (down, right), (below, beside) = layer.kernel_size, layer.stride, layer.dilation
    rows = (padded.shape[2] - below * (height - 1) - 1) // down + 1
    columns = (padded.shape[3] - beside * (width - 1) - 1) // right + 1
    places = min(rows * columns, -(-ROWS // (batches * len(inputs))))
    chosen = torch.randperm(rows * columns, generator=generator)[:places]
    vertical = (chosen // columns * down)[:, None] + below * torch.arange(height)
    horizontal = (chosen % columns * right)[:, None] + beside * torch.arange(width)
    cut = padded[:, :, vertical[:, :, None], horizontal[:, None, :]]  # [N, C, places, kh, kw]
    return cut.movedim(2, 1).flatten(0, 1)


def _centred(patches: Tensor, generator: torch.Generator) -> LayerInputs:
    if len(patches) > ROWS:
        patches = patches[torch.randperm(len(patches), generator=generator)[:ROWS]]
    mean = patches.mean(dim=0)
    return LayerInputs(patches - mean, mean)
