"""Preprocessing: from a picture to the model's input. What is here is part of every checkpoint and artifact."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from phonefit.models.errors import DataError
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Target, TargetKind, boxes_of

LEAST_SHARE = 0.3
"""Of a box's area: where less of it is seen, nobody could tell it."""
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as a person sees it, in 8-bit RGB: EXIF orientation applied, transparency on white.

    16-bit greyscale is scaled to 8 bits.

    Raises:
        DataError: the pixels have no agreed range (32-bit integer or float), or Pillow knows no way to RGB.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise DataError(f"pixels of mode {upright.mode} have no agreed range; save the picture with 8 or 16 bits")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    try:
        return upright.convert("RGB")
    except ValueError as error:
        raise DataError(
            f"pixels of mode {upright.mode} cannot become RGB ({error}); save the picture as RGB"
        ) from error


def apply(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize a picture of any mode and size to the input's: uint8 RGB [height, width, 3].

    "stretch" ignores the picture's proportions. "crop" keeps them: the picture is scaled so that its shorter side is
    round(size / crop_share), then the centre is cut out. For an oblong input the scale is the smallest one that covers
    both height / crop_share and width / crop_share. "letterbox" keeps them too, and shows the whole picture in the
    centre of grey of the value `padding`. All antialias (Pillow's resize).

    Raises:
        DataError: the picture cannot become RGB.
    """
    rgb = to_rgb(image)
    size = (preprocess.width, preprocess.height)
    resampling = RESAMPLING[preprocess.interpolation]
    if preprocess.resize == "letterbox":
        left, top, width, height = _letterbox(rgb.width, rgb.height, preprocess)
        padded = Image.new("RGB", size, (preprocess.padding,) * 3)
        padded.paste(rgb.resize((width, height), resampling), (left, top))
        return np.asarray(padded, dtype=np.uint8)
    box = None if preprocess.resize == "stretch" else _centre_box(rgb.width, rgb.height, preprocess)
    return np.asarray(rgb.resize(size, resampling, box=box), dtype=np.uint8)


def region(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """What the input shows of a picture of width x height: left, top, right, bottom, in the picture's pixels.

    With "letterbox" it reaches beyond the picture.
    """
    if preprocess.resize == "stretch":
        return 0.0, 0.0, float(width), float(height)
    if preprocess.resize == "crop":
        return _centre_box(width, height, preprocess)
    left, top, scaled_width, scaled_height = _letterbox(width, height, preprocess)
    return (
        -left * width / scaled_width,
        -top * height / scaled_height,
        (preprocess.width - left) * width / scaled_width,
        (preprocess.height - top) * height / scaled_height,
    )


def placed_target(kind: TargetKind, target: Target, size: tuple[int, int], preprocess: Preprocess) -> Target:
    """The target of a picture of this width and height, as it is in the input: boxes are moved along and cut off at the
    input's edges; those of which less than `LEAST_SHARE` is left go.
    """
    if kind != "boxes" or not isinstance(target, tuple) or not target:
        return target
    boxes = np.array(target, dtype=np.float64)
    left, top, right, bottom = region(*size, preprocess)
    across, down = preprocess.width / (right - left), preprocess.height / (bottom - top)
    corners = (boxes[:, 1:] - np.array([left, top] * 2)) * np.array([across, down] * 2)
    cut = corners.clip(0, np.array([preprocess.width, preprocess.height] * 2))
    areas, wholes = ((some[:, 2:] - some[:, :2]).prod(axis=1) for some in (cut, corners))
    return boxes_of(np.concatenate([boxes[:, :1], cut], axis=1)[areas >= LEAST_SHARE * wholes])


def _letterbox(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Left, top, width and height of the scaled picture in the input, in the input's pixels."""
    scale = min(preprocess.width / width, preprocess.height / height)
    scaled_width = min(max(round(width * scale), 1), preprocess.width)
    scaled_height = min(max(round(height * scale), 1), preprocess.height)
    return (
        (preprocess.width - scaled_width) // 2,
        (preprocess.height - scaled_height) // 2,
        scaled_width,
        scaled_height,
    )


def _centre_box(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """The part of the picture that is left after scaling and cropping, in its own pixels.

    Resizing this box gives the pixels of resizing the whole and cropping, without the (possibly huge) whole.
    """
    least_width = round(preprocess.width / preprocess.crop_share)
    least_height = round(preprocess.height / preprocess.crop_share)
    scale = max(least_width / width, least_height / height)
    scaled_width, scaled_height = max(round(width * scale), least_width), max(round(height * scale), least_height)
    left, top = (scaled_width - preprocess.width) // 2, (scaled_height - preprocess.height) // 2
    return (
        left * width / scaled_width,
        top * height / scaled_height,
        min((left + preprocess.width) * width / scaled_width, width),
        min((top + preprocess.height) * height / scaled_height, height),
    )


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """(pixel - mean) / std by channel: uint8 [N, height, width, 3] -> contiguous float32 [N, 3, height, width]."""
    values = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    values -= np.asarray(preprocess.mean, dtype=np.float32).reshape(1, 3, 1, 1)
    values /= np.asarray(preprocess.std, dtype=np.float32).reshape(1, 3, 1, 1)
    return values
