"""Random changes of training pictures."""

import torch
from torch import Tensor

from phonefit.models.spec import Preprocess
from phonefit.pipeline.recipe_steps import TrainConfig


def augmented(pixels: Tensor, config: TrainConfig, preprocess: Preprocess, generator: torch.Generator) -> Tensor:
    """Flip and shift each picture at random, then normalise.

    Args:
        pixels: uint8 [N, height, width, 3].

    Returns:
        float32 [N, 3, height, width], channels last in memory.
    """
    count, height, width = pixels.shape[:3]
    rows = _positions(count, height, config.flip == "both", config.shift, generator)
    columns = _positions(count, width, config.flip != "none", config.shift, generator)
    if config.flip != "none" or config.shift > 0:
        pixels = pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def _positions(count: int, size: int, flip: bool, shift: float, generator: torch.Generator) -> Tensor:
    """For each picture, which row (or column) comes where; the edge is repeated. int64 [count, size]."""
    largest = round(shift * size)
    offsets = torch.randint(-largest, largest + 1, (count, 1), generator=generator)
    flips = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
    positions = (torch.arange(size) + offsets).clamp(0, size - 1)
    return torch.where(flips, size - 1 - positions, positions) if flip else positions
