"""IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist/): one file of images, one of labels, also gzipped.

Magic number: two zero bytes, the type of the values, the number of dimensions; then the dimensions as big-endian
32-bit integers, then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.source import (
    Candidate,
    DigestCache,
    OnProgress,
    SourceConfig,
    file_stamp,
    required_path,
)
from phonefit.models.errors import DataError

TYPES: dict[int, np.dtype[np.integer]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
}
CHUNK = 1 << 20


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load images [N, height, width] or [N, height, width, 3] of unsigned bytes and labels [N] of integers.

    The labels are the values that occur, as text, in numeric order. A sample's name is "FILE#INDEX".

    Raises:
        DataError: a file is missing or not IDX, lengths do not fit, or there is one class only.
    """
    path = required_path(config, "idx")
    if config.labels_path is None:
        raise DataError("data source idx keeps labels in a file of their own; set data.labels_path")
    images, values = read_idx(path), read_idx(config.labels_path)
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DataError(
            f"{path}: holds {_describe(images)}; images must be unsigned bytes [count, height, width] or "
            "[count, height, width, 3]. Is it the file of labels?"
        )
    if values.ndim != 1:
        raise DataError(f"{config.labels_path}: holds {_describe(values)}; labels must be integers [count]")
    if len(images) != len(values):
        raise DataError(
            f"{path} holds {len(images)} images, {config.labels_path} {len(values)} labels; they must belong together"
        )
    if images.size == 0:
        raise DataError(f"{path}: holds {_describe(images)}, which is no picture at all")
    present, indices = np.unique(values, return_inverse=True)
    stamp = file_stamp(path)
    candidates = (Candidate(f"{path.name}#{index:06}", int(label), stamp) for index, label in enumerate(indices))

    def read(name: str) -> Image.Image:
        return Image.fromarray(images[int(name.rpartition("#")[2])]).convert("RGB")

    where = f"IDX files {path} and {config.labels_path}"
    return collect(where, [str(value) for value in present], candidates, read, config.limit, progress, cache)


def read_idx(path: Path) -> NDArray[np.integer]:
    """The array in an IDX file, gzipped or not.

    Raises:
        DataError: no such file, a wrong magic number, a type that is not integer, or fewer or more bytes than declared.
    """
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not zipped:
                return _parse(path, plain)
            with gzip.open(plain) as stream:
                return _parse(path, stream)  # type: ignore[arg-type]  # GzipFile reads like a BinaryIO
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; data.path and data.labels_path must be IDX files") from None


def _parse(path: Path, stream: BinaryIO) -> NDArray[np.integer]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{path}: not an IDX file of integers: it starts with {magic.hex(' ') or 'nothing'}, expected 00 00, "
            "a type (08, 09, 0b or 0c) and 1 to 4 dimensions"
        )
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{path}: ends within its header; fetch it again")
    shape = struct.unpack(f">{magic[3]}I", header)
    dtype = TYPES[magic[2]]
    expected = math.prod(shape) * dtype.itemsize
    content = bytearray()
    # piece by piece, as a damaged header may declare any length
    while len(content) <= expected and (piece := stream.read(min(CHUNK, expected + 1 - len(content)))):
        content += piece
    if len(content) != expected:
        has = "more" if len(content) > expected else f"{len(content):,}"
        size = "x".join(map(str, shape))
        raise DataError(f"{path}: declares {size} values, {expected:,} bytes, and has {has}; fetch it again")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _describe(values: NDArray[np.integer]) -> str:
    return f"{values.dtype.newbyteorder('=').name} [{', '.join(map(str, values.shape))}]"
