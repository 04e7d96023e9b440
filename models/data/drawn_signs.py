"""Drawn signs: generated pictures with exact boxes, to try out detection. Composites, not photographs of streets.

One to four traffic signs are drawn, turned, lit and pasted onto a tinted part of a photograph of a solar cell (package
elpv-dataset, CC BY-NC-SA 4.0: see `demo`); some lie over others or reach out of the picture. Then come blur and noise.
A box is what is seen of a sign's outline. What is reached here says nothing about streets.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.demo import package_folder
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, SourceConfig
from phonefit.models.errors import DataError
from phonefit.models.targets import Box

LABELS = ("stop", "yield", "limit", "parking")
PICTURES = 1200
SIZES = ((224, 168), (168, 224))  # width and height
MOST = 4
SMALLEST, LARGEST = 22, 84  # pixels of a sign's side
VERSION = "drawn signs 1"
"""Raised when the same name gives another picture."""

_DRAWN = 160  # a sign is drawn so large, and made smaller
_LEAST_SEEN = 0.5  # share of a sign that must be seen for it to have a box
_RED, _BLUE, _WHITE, _BLACK = (190, 25, 35), (25, 70, 165), (240, 240, 238), (20, 20, 20)


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Draw the pictures; a sample's name is its number.

    Raises:
        DataError: the package with the backgrounds is not installed.
    """
    package_folder()
    candidates = (Candidate(name, composed(name)[1], VERSION) for name in (f"{place:04}" for place in range(PICTURES)))
    return collect(
        "drawn signs", LABELS, candidates, lambda name: composed(name)[0], config.limit, progress, cache, "boxes"
    )


def composed(name: str) -> tuple[Image.Image, tuple[Box, ...]]:
    """The picture of that number, RGB, and its boxes. The same number gives the same picture."""
    random = np.random.default_rng([7, int(name)])
    width, height = SIZES[int(random.integers(len(SIZES)))]
    picture = _background(random, width, height)
    owner = np.full((height, width), -1)  # which sign is seen at each pixel
    labels, areas = [], []
    for place in range(int(random.integers(1, MOST + 1))):
        label = int(random.integers(len(LABELS)))
        sign = _turned(_sign(label, random), random)
        left, top = (int(random.integers(-sign_side // 4, side - 3 * sign_side // 4))
                     for sign_side, side in zip(sign.size, (width, height), strict=True))  # fmt: skip
        picture.paste(sign, (left, top), sign)
        solid = _solid(sign, left, top, width, height)
        owner[solid] = place
        labels.append(label)
        areas.append(int((np.asarray(sign.getchannel("A")) > 127).sum()))
    boxes = []
    for place, (label, area) in enumerate(zip(labels, areas, strict=True)):
        rows, columns = np.nonzero(owner == place)
        if len(rows) >= _LEAST_SEEN * area:
            corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            boxes.append((label, *map(float, corners)))
    return _photographed(picture, random), tuple(boxes)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _photographs() -> tuple[str, ...]:
    names = sorted(path.name for path in (package_folder() / "images").glob("*.png"))
    if not names:
        raise DataError(f"{package_folder()}: no photographs; reinstall elpv-dataset")
    return tuple(names)


def _background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """A part of a photograph between two colours."""
    names = _photographs()
    photograph = open_picture(package_folder() / "images" / names[int(random.integers(len(names)))])
    side = int(random.integers(photograph.width // 3, photograph.width))
    left, top = (int(random.integers(0, whole - side + 1)) for whole in photograph.size)
    grey = photograph.crop((left, top, left + side, top + side)).resize((width, height)).convert("L")
    levels = np.asarray(grey, dtype=np.float32)[:, :, None] / 255
    dark, light = random.uniform(0, 110, 3), random.uniform(90, 255, 3)
    return Image.fromarray((dark + levels * (light - dark)).astype(np.uint8))


def _sign(label: int, random: np.random.Generator) -> Image.Image:
    """A sign with its outline, RGBA, `_DRAWN` pixels square."""
    sign = Image.new("RGBA", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(sign)
    middle, end = _DRAWN // 2, _DRAWN - 1
    if LABELS[label] == "stop":
        for inset, colour in ((0, _WHITE), (7, _RED)):
            draw.regular_polygon((middle, middle, middle - inset), 8, rotation=22, fill=colour)
        _write(draw, "STOP", middle, middle, 44, _WHITE)
    elif LABELS[label] == "yield":
        draw.polygon([(0, 14), (end, 14), (middle, end - 8)], fill=_RED)
        draw.polygon([(34, 34), (end - 34, 34), (middle, end - 48)], fill=_WHITE)
    elif LABELS[label] == "limit":
        draw.ellipse((0, 0, end, end), fill=_RED)
        draw.ellipse((20, 20, end - 20, end - 20), fill=_WHITE)
        _write(draw, str(random.choice(("30", "50", "60", "80"))), middle, middle, 70, _BLACK)
    else:
        draw.rounded_rectangle((0, 0, end, end), 18, fill=_WHITE)
        draw.rounded_rectangle((7, 7, end - 7, end - 7), 14, fill=_BLUE)
        _write(draw, "P", middle, middle, 110, _WHITE)
    return sign


def _write(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int, colour: tuple[int, int, int]) -> None:
    draw.text((x, y), text, fill=colour, font=ImageFont.load_default(size), anchor="mm")


def _turned(sign: Image.Image, random: np.random.Generator) -> Image.Image:
    """Seen from the side, turned, lit, and as large as it comes to be."""
    side = int(random.integers(SMALLEST, LARGEST + 1))
    narrow = float(random.uniform(0.7, 1.0))
    lit = np.asarray(sign).astype(np.float32)
    lit[:, :, :3] *= random.uniform(0.45, 1.1) * random.uniform(0.9, 1.1, 3)
    left, right = random.uniform(0.75, 1.15, 2).tolist()
    lit[:, :, :3] *= np.linspace(left, right, _DRAWN)[None, :, None]
    shown = Image.fromarray(lit.clip(0, 255).astype(np.uint8), "RGBA").rotate(
        float(random.uniform(-18, 18)), Image.Resampling.BICUBIC, expand=True
    )
    return shown.resize((max(8, round(side * narrow)), side), Image.Resampling.LANCZOS)


def _solid(sign: Image.Image, left: int, top: int, width: int, height: int) -> NDArray[np.bool_]:
    """Where a pasted sign is seen: bool [height, width]."""
    whole = Image.new("L", (width, height))
    whole.paste(sign.getchannel("A"), (left, top))
    solid: NDArray[np.bool_] = np.asarray(whole) > 127
    return solid


def _photographed(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """With the blur and the noise of a small camera."""
    blurred = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 1.3))))
    pixels = np.asarray(blurred, dtype=np.float32) * random.uniform(0.7, 1.15)
    noisy = pixels + random.normal(0, random.uniform(2, 14), pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
