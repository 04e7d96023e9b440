"""Weights as packages of TensorFlow.js carry them: a manifest, and integers of 8 bits beside it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

Range = Callable[[str, Sequence[int]], tuple[float, float]]
"""Name and shape of a tensor -> lowest and highest value."""


def write_tfjs_weights(manifest: Path, shapes: Mapping[str, Sequence[int]], between: Range) -> Path:
    """Seeded random tensors of these shapes."""
    random, content, entries = np.random.default_rng(0), b"", []
    for name, shape in shapes.items():
        low, high = between(name, shape)
        quantization = {"dtype": "uint8", "scale": (high - low) / 255, "min": low}
        entries.append({"name": name, "shape": shape, "dtype": "float32", "quantization": quantization})
        content += random.integers(0, 256, shape, dtype=np.uint8).tobytes()
    manifest.parent.mkdir(parents=True)
    (manifest.parent / "part.bin").write_bytes(content)
    manifest.write_text(json.dumps([{"weights": entries, "paths": ["part.bin"]}]))
    return manifest
