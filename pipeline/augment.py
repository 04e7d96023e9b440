"""Random changes of training pictures."""

import torch
from torch import Tensor

from phonefit.models.spec import Preprocess
from phonefit.pipeline.recipe_steps import TrainConfig


def augmented(pixels: Tensor, config: TrainConfig, preprocess: Preprocess, generator: torch.Generator) -> Tensor:
    """Flip and shift each picture at random, then normalise: see `moved` and `normalised`."""
    return normalised(moved(pixels, config, generator)[0], preprocess)


def moved(pixels: Tensor, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Flip and shift each picture at random: uint8 [N, height, width, 3].

    Returns:
        The pictures, and which way they went, see `Task.moved`: bool [N, 2] and int64 [N, 2].
    """
    count, height, width = pixels.shape[:3]
    rows, over, down = _positions(count, height, config.flip == "both", config.shift, generator)
    columns, across, right = _positions(count, width, config.flip != "none", config.shift, generator)
    if config.flip != "none" or config.shift > 0:
        pixels = pixels[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels, torch.cat([over, across], dim=1), torch.cat([down, right], dim=1)


def normalised(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """(pixel - mean) / std: uint8 [N, height, width, 3] -> float32 [N, 3, height, width], channels last in memory."""
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def _positions(
    count: int, size: int, flip: bool, shift: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """For each picture, which row (or column) comes where, int64 [count, size]; the edge is repeated. And whether it is
    mirrored, bool [count, 1], and how far it moves then, int64 [count, 1].
    """
    largest = round(shift * size)
    offsets = torch.randint(-largest, largest + 1, (count, 1), generator=generator)
    flips = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool) & flip
    positions = (torch.arange(size) + offsets).clamp(0, size - 1)
    return torch.where(flips, size - 1 - positions, positions), flips, -offsets
