"""Random changes of training pictures with boxes. Imports torch: tasks import this module inside their functions."""

import torch
from torch import Tensor

from phonefit.models.data.preprocess import LEAST_SHARE


def mosaic(pixels: Tensor, targets: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four pictures in one, for that share of the batch (YOLOv4: Bochkovskiy et al. 2020, arXiv 2004.10934).

    Each shows a window of its own picture, which keeps its size, around a common corner between a quarter and three
    quarters of the side.

    Args:
        pixels: uint8 [N, height, width, 3].
        targets: float32 [N, M, 5], label and corners, padded with -1.
    """
    count, height, width = pixels.shape[:3]
    chosen = (torch.rand(count, generator=generator) < share).nonzero()[:, 0].tolist()
    if not chosen:
        return pixels, targets
    mixed, boxes = pixels.clone(), [rows[rows[:, 0] >= 0] for rows in targets]
    result = list(boxes)
    for place in chosen:
        others = [place, *torch.randint(count, (3,), generator=generator).tolist()]
        x, y = (int(side * (0.25 + 0.5 * torch.rand(1, generator=generator).item())) for side in (width, height))
        parts = []
        for other, (left, top, right, bottom) in zip(
            others, ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)), strict=True
        ):
            # the window's place in its own picture
            across = int(torch.randint(width - (right - left) + 1, (1,), generator=generator))
            down = int(torch.randint(height - (bottom - top) + 1, (1,), generator=generator))
            mixed[place, top:bottom, left:right] = pixels[
                other, down : down + bottom - top, across : across + right - left
            ]
            offset = torch.tensor([left - across, top - down] * 2, dtype=targets.dtype)
            parts.append(_cut(boxes[other], offset, (left, top, right, bottom)))
        result[place] = torch.cat(parts)
    return mixed, padded(result)


def moved_boxes(targets: Tensor, flips: Tensor, shifts: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes of pictures that were mirrored and shifted.

    Args:
        targets: float32 [N, M, 5].
        flips: bool [N, 2]: top to bottom, left to right; before the shift.
        shifts: int64 [N, 2]: pixels down and right.
        size: height and width.
    """
    moved = []
    for rows, (over, across), (down, right) in zip(targets, flips.tolist(), shifts.tolist(), strict=True):
        label, x1, y1, x2, y2 = rows[rows[:, 0] >= 0].unbind(1)
        if across:
            x1, x2 = size[1] - x2, size[1] - x1
        if over:
            y1, y2 = size[0] - y2, size[0] - y1
        offset = torch.tensor([right, down, right, down], dtype=targets.dtype)
        moved.append(_cut(torch.stack([label, x1, y1, x2, y2], 1), offset, (0, 0, size[1], size[0])))
    return padded(moved)


def coloured(pixels: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each channel brightened and the whole brought nearer to or further from its mean, by up to that share.

    uint8 [N, height, width, 3] -> the same.
    """
    if strength == 0:
        return pixels
    count = len(pixels)
    gains = 1 + strength * (2 * torch.rand(count, 1, 1, 3, generator=generator) - 1)
    contrasts = 1 + strength * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    values = pixels.float()
    means = values.mean(dim=(1, 2, 3), keepdim=True)
    return (((values - means) * contrasts + means) * gains).round().clamp(0, 255).to(torch.uint8)


def padded(boxes: list[Tensor]) -> Tensor:
    """Boxes of each picture, [M, 5] each -> [N, largest M, 5], padded with -1; M is at least 1."""
    rows = torch.full((len(boxes), max(1, *map(len, boxes)), 5), -1.0)
    for place, some in enumerate(boxes):
        rows[place, : len(some)] = some
    return rows


def _cut(rows: Tensor, offset: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """Boxes [M, 5] moved and cut off at a window; those of which too little is left go."""
    low, high = torch.tensor(window[:2]), torch.tensor(window[2:])
    corners = rows[:, 1:] + offset
    cut = torch.cat([corners[:, :2].maximum(low), corners[:, 2:].minimum(high)], dim=1)
    left = (cut[:, 2:] - cut[:, :2]).clamp(min=0).prod(dim=1)
    area = (corners[:, 2:] - corners[:, :2]).prod(dim=1)
    return torch.cat([rows[:, :1], cut], dim=1)[left >= LEAST_SHARE * area]
