"""Weights of TensorFlow.js: a manifest in JSON beside files of numbers."""

import json
import math
from pathlib import Path

import numpy as np
from torch import Tensor, from_numpy

from phonefit.models.errors import FileFormatError

ENDING = "weights_manifest.json"


def load_tfjs(manifest: Path) -> dict[str, Tensor]:
    """The tensors of a manifest by name, float32, in TensorFlow's layout: convolutions [height, width, in, out].

    Quantised ones are stored as integers: value = integer x scale + min.

    Raises:
        FileFormatError: it is not a manifest, or the files beside it do not hold what it says.
    """
    found: dict[str, Tensor] = {}
    try:
        for group in json.loads(manifest.read_text(encoding="utf-8")):
            content, place = b"".join(manifest.with_name(path).read_bytes() for path in group["paths"]), 0
            for entry in group["weights"]:
                stored = entry.get("quantization", {"dtype": entry["dtype"], "scale": 1.0, "min": 0.0})
                dtype, count = np.dtype(stored["dtype"]), math.prod(entry["shape"])
                values = np.frombuffer(content, dtype, count, place).astype(np.float32) * stored["scale"]
                found[entry["name"]] = from_numpy((values + stored["min"]).astype(np.float32).reshape(entry["shape"]))
                place += count * dtype.itemsize
            if place != len(content):
                raise ValueError(f"{len(content)} bytes where {place} are described")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{manifest}: not a complete manifest of TensorFlow.js weights ({error!r})") from None
    return found
