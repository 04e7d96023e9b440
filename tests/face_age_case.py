"""Of face_age: weights in the form of the published ones, without the package; photographs whose ages are known."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from phonefit.models.data.align import cropped
from phonefit.models.families.face_age import MANIFEST
from tests.face_photographs import FACES
from tests.tfjs import write_tfjs_weights

AGE = 40.0
AGES = {"biden.jpg": 67.5, "obama.jpg": 51.3, "obama2.jpg": 48.1, "obama3.jpg": 48.8}
"""At the day in each file's EXIF data: 2010-05-10, 2012-12-06, 2009-09-09, 2010-05-10. The persons were born on
1942-11-20 and 1961-08-04."""


def cuts(picture: Image.Image, name: str, count: int, share: float = 0.08) -> list[Image.Image]:
    """The face in a photograph, cut out otherwise: each edge is moved by at most that share of the face's width."""
    random, (left, _, right, _) = np.random.default_rng(0), FACES[name]
    found = []
    for _ in range(count):
        moved = np.array(FACES[name]) + (random.uniform(-share, share, 4) * (right - left)).round().astype(int)
        moved = moved.clip(0, [picture.width, picture.height] * 2)
        found.append(cropped(picture, (int(moved[0]), int(moved[1]), int(moved[2]), int(moved[3]))))
    return found


def published_shapes() -> dict[str, list[int]]:
    """Names and shapes as in the package's manifest."""
    shapes = {"entry_flow/conv_in/filters": [3, 3, 3, 32], "entry_flow/conv_in/bias": [32]}

    def separable(name: str, before: int, after: int) -> None:
        shapes[f"{name}/depthwise_filter"] = [3, 3, before, 1]
        shapes[f"{name}/pointwise_filter"] = [1, 1, before, after]
        shapes[f"{name}/bias"] = [after]

    halving = {"entry_flow/reduction_block_0": (32, 64), "entry_flow/reduction_block_1": (64, 128)}
    for name, (before, after) in (halving | {"exit_flow/reduction_block": (128, 256)}).items():
        separable(f"{name}/separable_conv0", before, after)
        separable(f"{name}/separable_conv1", after, after)
        shapes[f"{name}/expansion_conv/filters"] = [1, 1, before, after]
        shapes[f"{name}/expansion_conv/bias"] = [after]
    for block in range(2):
        for index in range(3):
            separable(f"middle_flow/main_block_{block}/separable_conv{index}", 128, 128)
    separable("exit_flow/separable_conv", 256, 512)
    for name, outputs in (("age", 1), ("gender", 2)):
        shapes[f"fc/{name}/weights"] = [512, outputs]
        shapes[f"fc/{name}/bias"] = [outputs]
    return shapes


def write_weights(folder: Path) -> Path:
    """Random weights of the published form in integers of 8 bits, below `folder` as npm puts them there.

    Each layer keeps about the size of its values; the number is near `AGE`.
    """

    def between(name: str, shape: Sequence[int]) -> tuple[float, float]:
        inputs = 9 if "depthwise" in name else math.prod(shape[:-1])
        widest = 0.2 if name.endswith("bias") else 2.0 / math.sqrt(inputs)
        middle = AGE if name == "fc/age/bias" else 0.0
        return middle - widest, middle + widest

    return write_tfjs_weights(folder / MANIFEST, published_shapes(), between)
