"""One picture: reading it from untrusted bytes, and its identity."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from phonefit.models.data.preprocess import to_rgb
from phonefit.models.errors import DataError

LARGEST = 89_478_485
"""Pixels that a picture may have (a quarter of a GiB as RGB): a few bytes of file can claim any size."""

DIGEST_VERSION = 1
"""Raised when `picture_digest` or `to_rgb` gives another result for the same file."""


def open_picture(source: Path | BinaryIO) -> Image.Image:
    """Decode a picture completely: upright 8-bit RGB.

    Raises:
        DataError: the file is missing, empty, truncated, too large, not a picture, or may not be read. The message is
            the reason alone, without the file's name.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > LARGEST:
                raise DataError(f"{image.width}x{image.height} pixels, more than {LARGEST:,} in all; make it smaller")
            return to_rgb(image)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("no such file") from None
    except PermissionError:
        raise DataError("no permission to read it") from None
    except UnidentifiedImageError:
        empty = isinstance(source, Path) and source.stat().st_size == 0
        raise DataError("empty file" if empty else "not a picture of a known format") from None
    except Image.DecompressionBombError:
        raise DataError(f"more than {LARGEST:,} pixels; make it smaller") from None
    except Exception as error:  # decoders of broken files raise nearly anything: SyntaxError, struct.error, KeyError, …
        raise DataError(f"damaged: {str(error) or type(error).__name__}") from error


def picture_digest(image: Image.Image) -> str:
    """sha256 of an RGB picture's size and pixels: equal for copies in lossless formats, whatever their names."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
