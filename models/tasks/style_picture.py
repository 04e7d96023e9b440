"""The picture whose style is learned: a person's own, or brush strokes that are painted here."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from phonefit.models.data.picture import open_picture
from phonefit.models.data.preprocess import apply
from phonefit.models.errors import DataError
from phonefit.models.spec import Preprocess

PAINTED_SIZE = 256  # pixels
STROKES = 6000
PALETTE = (
    (16, 42, 110), (28, 78, 160), (64, 130, 190), (120, 176, 206), (240, 200, 60), (250, 232, 150), (24, 30, 66),
    (226, 140, 40),
)  # fmt: skip


def style_picture(path: Path | None, height: int, width: int) -> NDArray[np.uint8]:
    """The picture, scaled to cover height x width and cut there: uint8 RGB [height, width, 3].

    Args:
        path: None for the painted one.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        picture = painted() if path is None else open_picture(path)
    except DataError as error:
        raise DataError(f"task.picture: {path}: {error}") from None
    whole = Preprocess(height=height, width=width, crop_share=1.0, mean=(0, 0, 0), std=(255, 255, 255))
    return apply(picture, whole)


@lru_cache(maxsize=1)
def painted() -> Image.Image:
    """Brush strokes along swirls, blue and yellow: always the same."""
    random = np.random.default_rng(0)
    picture = Image.new("RGB", (PAINTED_SIZE, PAINTED_SIZE), PALETTE[1])
    draw = ImageDraw.Draw(picture)
    centres = random.uniform(0, PAINTED_SIZE, (7, 2))
    turns = random.choice((-1.0, 1.0), 7)
    for x, y in random.uniform(0, PAINTED_SIZE, (STROKES, 2)):
        away = np.array((x, y)) - centres
        distance = np.hypot(*away.T) + 1.0
        pull = turns / distance**1.5  # the nearest swirl turns the stroke most
        angle = math.atan2(float((pull * away[:, 0]).sum()), float((-pull * away[:, 1]).sum()))
        ring = math.sin(float(distance.min()) / 5.0)  # swirls have rings of light and dark paint
        shade = (
            4 + int(random.integers(2))
            if ring > 0.6
            else int(random.choice((0, 1, 2, 3, 6), p=(0.25, 0.3, 0.2, 0.1, 0.15)))
        )
        colour = tuple(int(level) for level in np.clip(np.array(PALETTE[shade]) + random.integers(-18, 19), 0, 255))
        length, thickness = random.uniform(4, 11), int(random.integers(2, 4))
        step = (math.cos(angle) * length / 2, math.sin(angle) * length / 2)
        draw.line((x - step[0], y - step[1], x + step[0], y + step[1]), fill=colour, width=thickness)
    return picture
