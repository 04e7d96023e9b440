"""Drawn faces: generated pictures of persons who do not exist, to try out what faces need. Not photographs.

A person is a set of parameters drawn at random once: colours of skin, hair and eyes, shape of the head, place and size
of each feature, hair and beard. Each picture of them changes what is not theirs: where the head looks and how it is
tilted, expression, light, background, glasses put on, blur and noise. What is reached here says nothing about
photographs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.source import Candidate, DigestCache, OnProgress, SourceConfig

PERSONS = 400
PICTURES = 10
"""Of each person."""
SIZE = 64
"""Pixels of a side."""
VERSION = "drawn faces 1"
"""Raised when the same name gives another picture."""

_DRAWN = 3 * SIZE  # drawn larger and made smaller, for smooth edges

CENTRE = 0.52
"""Height of the middle of a head, as a share of the picture's side."""
GLASSES = (25, 25, 30)

Colour = tuple[int, int, int]
Place = tuple[float, float]


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Draw the pictures; the classes are the persons. A sample's name is PERSON/PICTURE."""
    labels = [f"person{person:03}" for person in range(PERSONS)]
    candidates = (
        Candidate(f"{label}/{picture:02}", person, VERSION)
        for person, label in enumerate(labels)
        for picture in range(PICTURES)
    )
    return collect("drawn faces", labels, candidates, drawn, config.limit, progress, cache)


def drawn(name: str) -> Image.Image:
    """The picture of that name, PERSON/PICTURE: RGB, `SIZE` x `SIZE`. The same name gives the same picture."""
    person, picture = (int("".join(filter(str.isdigit, part))) for part in name.split("/"))
    face, random = _face(np.random.default_rng([0, person])), np.random.default_rng([1, person, picture])
    return _photographed(_painted(face, random), random)


@dataclass(frozen=True)
class _Face:
    """What belongs to a person. Lengths are shares of the picture's side."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    width: float  # half of the head's
    height: float
    jaw: float  # width of the chin as a share of the head's
    hairline: float
    hair_length: float
    fringe: float
    eye_gap: float
    eye_height: float
    eye_size: float
    eye_shape: float
    brow_height: float
    brow_width: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lip: float
    ear: float
    beard: float


def _face(random: np.random.Generator) -> _Face:
    def between(low: float, high: float) -> float:
        return float(random.uniform(low, high))

    def one_of(colours: Sequence[Colour]) -> int:
        return int(random.integers(len(colours)))

    tone = between(0, 1)
    skin = _mixed((247, 214, 190), (92, 58, 40), tone)
    hairs: Sequence[Colour] = (
        (25, 20, 20),
        (70, 45, 30),
        (125, 85, 50),
        (205, 165, 95),
        (150, 60, 30),
        (165, 165, 165),
    )
    irises: Sequence[Colour] = ((60, 40, 25), (110, 80, 40), (70, 115, 160), (80, 125, 80), (120, 130, 135))
    return _Face(
        skin=skin,
        hair=_mixed(hairs[one_of(hairs)], hairs[one_of(hairs)], between(0, 0.4)),
        iris=irises[one_of(irises)],
        lips=_mixed(skin, (170, 50, 60), between(0.3, 0.8)),
        width=between(0.23, 0.31),
        height=between(0.33, 0.40),
        jaw=between(0.45, 0.85),
        hairline=between(0.08, 0.26),
        hair_length=between(-0.1, 0.75),
        fringe=between(-0.6, 0.6),
        eye_gap=between(0.085, 0.135),
        eye_height=between(-0.08, 0.0),
        eye_size=between(0.032, 0.056),
        eye_shape=between(0.4, 0.8),
        brow_height=between(0.055, 0.10),
        brow_width=between(0.012, 0.032),
        brow_tilt=between(-0.03, 0.03),
        nose_length=between(0.10, 0.17),
        nose_width=between(0.025, 0.06),
        mouth_height=between(0.17, 0.23),
        mouth_width=between(0.06, 0.12),
        lip=between(0.012, 0.032),
        ear=between(0.03, 0.07),
        beard=max(0.0, between(-1.2, 0.9)),
    )


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _any_colour(random: np.random.Generator) -> Colour:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


@dataclass(frozen=True)
class _Look:
    """What belongs to one picture. `yaw` and `pitch` are -1..1: where the head looks."""

    yaw: float
    pitch: float
    smile: float
    opened: float  # the mouth
    lids: float
    raised: float  # the brows
    shirt: Colour
    glasses: bool


class _Canvas:
    """Draws with lengths that are shares of the picture's side."""

    def __init__(self, image: Image.Image) -> None:
        self.draw = ImageDraw.Draw(image)

    def ellipse(self, x: float, y: float, across: float, down: float, fill: Colour) -> None:
        self.draw.ellipse([value * _DRAWN for value in (x - across, y - down, x + across, y + down)], fill=fill)

    def ring(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        corners = [value * _DRAWN for value in (x - across, y - down, x + across, y + down)]
        self.draw.ellipse(corners, outline=colour, width=3)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.draw.rectangle([value * _DRAWN for value in (left, top, right, bottom)], fill=fill)

    def polygon(self, points: Sequence[Place], fill: Colour) -> None:
        self.draw.polygon([(x * _DRAWN, y * _DRAWN) for x, y in points], fill=fill)

    def line(self, points: Sequence[Place], width: float, fill: Colour) -> None:
        self.draw.line([(x * _DRAWN, y * _DRAWN) for x, y in points], fill=fill, width=max(1, round(width * _DRAWN)))


def _painted(face: _Face, random: np.random.Generator) -> Image.Image:
    """The face with an expression, looking somewhere, before a background; unlit."""
    behind, more = _any_colour(random), _any_colour(random)
    image = Image.new("RGB", (_DRAWN, _DRAWN), behind)
    canvas = _Canvas(image)
    left, top = random.integers(-_DRAWN // 2, _DRAWN, 2).tolist()
    canvas.draw.rectangle((left, top, left + _DRAWN // 2, top + _DRAWN), fill=more)
    yaw, pitch = random.uniform(-1, 1), random.uniform(-1, 1)
    smile, opened, lids, raised = random.uniform((-0.4, -0.6, 0.55, -0.01), (1, 1, 1.15, 0.015))
    look = _Look(yaw, pitch, smile, opened, lids, raised, _any_colour(random), random.random() < 0.2)
    shadow = _mixed(face.skin, (40, 20, 20), 0.35)
    middle, eyes = 0.5 + 0.05 * yaw, CENTRE + face.eye_height + 0.02 * pitch  # features move, the head's edge does not
    _paint_head(canvas, face, look, shadow, middle, eyes)
    _paint_eyes(canvas, face, look, middle, eyes)
    _paint_nose_and_mouth(canvas, face, look, shadow, middle, eyes)
    if look.glasses:
        for side in (-1, 1):
            canvas.ring(middle + side * face.eye_gap, eyes, 0.075, 0.06, GLASSES)
        canvas.line([(middle - 0.03, eyes), (middle + 0.03, eyes)], 0.012, GLASSES)
    return image


def _paint_head(canvas: _Canvas, face: _Face, look: _Look, shadow: Colour, middle: float, eyes: float) -> None:
    canvas.polygon([(0.2, 1.0), (0.38, 0.86), (0.62, 0.86), (0.8, 1.0)], look.shirt)
    if face.hair_length > 0:
        back = CENTRE + face.height * face.hair_length
        canvas.rectangle(0.5 - 1.12 * face.width, 0.4, 0.5 + 1.12 * face.width, back, face.hair)
    canvas.polygon(_edge(face, 1.12, math.pi, 2 * math.pi), face.hair)
    canvas.polygon([(0.42, 0.7), (0.58, 0.7), (0.6, 0.95), (0.4, 0.95)], shadow)
    for side in (-1, 1):
        canvas.ellipse(0.5 + side * face.width, eyes + 0.03, 0.4 * face.ear, face.ear, shadow)
    canvas.polygon(_edge(face, 1.0, 0, 2 * math.pi), face.skin)
    if face.beard > 0:
        chin = _edge(face, 1.0, 0.08 * math.pi, 0.92 * math.pi)
        canvas.polygon([*chin, (middle - 0.08, 0.62), (middle + 0.08, 0.62)], _mixed(face.skin, face.hair, face.beard))
    hairline = CENTRE - face.height + face.hairline
    fringe = (0.5 + 0.9 * face.width * (face.fringe + 0.25 * look.yaw), hairline + 0.05)
    canvas.polygon([*_edge(face, 1.03, 1.08 * math.pi, 1.92 * math.pi), fringe], face.hair)


def _edge(face: _Face, scale: float, start: float, stop: float) -> list[Place]:
    """Points on the head's edge, from angle to angle; 0 is at the right, pi / 2 at the chin."""
    points = []
    for angle in np.linspace(start, stop, 40).tolist():
        narrow = 1 - (1 - face.jaw) * max(0.0, math.sin(angle)) ** 2 * abs(math.cos(angle)) ** 0.3
        x = 0.5 + scale * face.width * narrow * math.cos(angle)
        points.append((x, CENTRE + scale * face.height * math.sin(angle)))
    return points


def _paint_eyes(canvas: _Canvas, face: _Face, look: _Look, middle: float, eyes: float) -> None:
    for side in (-1, 1):
        x = middle + side * face.eye_gap * (1 - 0.12 * side * look.yaw)
        down = face.eye_size * face.eye_shape * look.lids
        canvas.ellipse(x, eyes, face.eye_size, down, (240, 240, 236))
        canvas.ellipse(x + 0.012 * look.yaw, eyes, 0.9 * down, 0.9 * down, face.iris)
        canvas.ellipse(x + 0.012 * look.yaw, eyes, 0.4 * down, 0.4 * down, (10, 10, 10))
        brow = eyes - face.brow_height - look.raised
        ends = [(x - side * 0.05, brow + face.brow_tilt), (x + side * 0.05, brow - face.brow_tilt)]
        canvas.line(ends, face.brow_width, _mixed(face.hair, (20, 15, 15), 0.3))


def _paint_nose_and_mouth(
    canvas: _Canvas, face: _Face, look: _Look, shadow: Colour, middle: float, eyes: float
) -> None:
    x, y = middle + 0.025 * look.yaw, eyes + face.nose_length
    wings = [(x - face.nose_width, y), (x, y + 0.015), (x + face.nose_width, y)]
    bridge = [(middle + side * 0.2 * face.nose_width, eyes) for side in (-1, 1)]
    canvas.polygon([bridge[0], *wings, bridge[1]], _mixed(face.skin, shadow, 0.5))
    mouth = CENTRE + face.mouth_height + 0.015 * look.pitch
    curve = [
        (middle + 0.012 * look.yaw + face.mouth_width * across, mouth - 0.03 * look.smile * (across * across - 0.5))
        for across in np.linspace(-1, 1, 9).tolist()
    ]
    if look.opened > 0:
        canvas.ellipse(middle, mouth + 0.01, 0.7 * face.mouth_width, 0.035 * look.opened, (70, 15, 20))
    canvas.line(curve, face.lip, face.lips)


def _photographed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Tilted, moved, lit from a side, blurred and noisy, at its final size."""
    angle, scale = math.radians(random.uniform(-15, 15)), random.uniform(0.88, 1.15)
    across, down = random.uniform(-0.06, 0.06, 2) * _DRAWN
    cosine, sine, half = math.cos(angle) / scale, math.sin(angle) / scale, _DRAWN / 2
    matrix = (cosine, sine, half + across - (cosine + sine) * half, -sine, cosine, half + down - (cosine - sine) * half)
    placed = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    small = placed.resize((SIZE, SIZE), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(random.uniform(0, 0.8)))
    place = np.linspace(-1, 1, SIZE)
    direction = random.uniform(0, 2 * math.pi)
    light = 1 + random.uniform(0, 0.4) * (math.cos(direction) * place[None, :] + math.sin(direction) * place[:, None])
    colour = random.uniform(0.7, 1.15) * random.uniform(0.92, 1.08, 3)
    pixels: NDArray[np.float64] = np.asarray(small) * light[:, :, None] * colour
    pixels += random.normal(0, random.uniform(2, 10), pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
