"""A face cut out of a picture, upright and always in the same place, so that networks compare like with like."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phonefit.models.errors import DataError

Doubles = NDArray[np.float64]

SIZE = 112
TEMPLATE: Doubles = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the centre of the eye on the left of the picture, that of the other, the tip of the nose and the corners of the
mouth, left and right, are in an aligned picture of `SIZE` pixels: as published with ArcFace (arXiv 1801.07698)."""


def similarity(points: Doubles, wanted: Doubles) -> Doubles:
    """The rotation, scaling and shift that bring points nearest to where they are wanted, in the least squares.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns"; never mirrors.

    Args:
        points, wanted: float64 [N, 2], x and y.

    Returns:
        float64 [2, 3]: wanted = matrix[:, :2] @ point + matrix[:, 2].

    Raises:
        DataError: all points are the same.
    """
    centre, aim = points.mean(axis=0), wanted.mean(axis=0)
    spread, around = points - centre, wanted - aim
    size = float((spread**2).sum())
    if size == 0:
        raise DataError("landmarks are one point; give eyes, nose and corners of the mouth")
    # of two dimensions, a rotation with a scale is one complex factor: the projection of the one pattern on the other
    real = float((spread * around).sum()) / size
    imaginary = float((spread[:, 0] * around[:, 1] - spread[:, 1] * around[:, 0]).sum()) / size
    turn = np.array([[real, -imaginary], [imaginary, real]])
    return np.column_stack([turn, aim - turn @ centre])


def aligned(image: Image.Image, landmarks: Doubles, size: int = SIZE) -> Image.Image:
    """The face, size x size pixels, with its landmarks nearest to `TEMPLATE`; black beyond the picture's edge.

    Args:
        image: RGB.
        landmarks: float64 [5, 2], x and y in pixels, in the order of `TEMPLATE`.

    Raises:
        DataError: the landmarks are not five points, or are one.
    """
    if landmarks.shape != TEMPLATE.shape or not np.isfinite(landmarks).all():
        raise DataError(f"landmarks are {len(TEMPLATE)} points of x and y, got {landmarks.size} numbers")
    wanted = TEMPLATE * (size / SIZE)
    scale = float(np.hypot(*similarity(landmarks, wanted)[:, 0]))
    shrink = max(1, int(1 / scale))  # Pillow's transform reads single pixels: a much larger picture would alias
    if shrink > 1:
        image, landmarks = image.reduce(shrink), landmarks / shrink
    # Pillow asks where each pixel comes from
    matrix = similarity(wanted, landmarks)
    return image.transform(
        (size, size), Image.Transform.AFFINE, tuple(matrix.flatten().tolist()), Image.Resampling.BICUBIC
    )


def cropped(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The part within left, top, right, bottom, in pixels.

    Raises:
        DataError: the box is empty or reaches beyond the picture.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise DataError(f"the crop {left},{top},{right},{bottom} is not within {image.width}x{image.height} pixels")
    return image.crop(box)
