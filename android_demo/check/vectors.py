"""Shared vectors: cases whose right answer Python computes, for the Kotlin code to be held against.

A folder of vectors holds cases.json and data.bin. Each case carries the text of an artifact's description, as the app
reads it. A preprocessing case adds a picture and what it must become; a decoding case adds stored outputs and what they
mean. Numbers named in `offsets` are positions in data.bin, of raw little-endian arrays whose size the artifact gives.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phonefit.device_bench.runtimes.run_samples import arrange
from phonefit.device_bench.runtimes.runtime import to_real, to_stored
from phonefit.models import decode
from phonefit.models.artifact import Artifact
from phonefit.models.data.preprocess import apply, normalise
from phonefit.models.decoding import (
    ClassificationDecoding,
    Decoding,
    DetectionDecoding,
    EmbeddingDecoding,
    MultiLabelDecoding,
    RegressionDecoding,
    StyleDecoding,
)
from phonefit.models.spec import Preprocess, TensorSpec

GENERATED, GOLDEN = 160, 12
DECODED = 20  # of each kind
SCHEMA = 1


@dataclass
class Vectors:
    """Cases so far, and the arrays that they point into."""

    cases: list[dict[str, Any]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)

    def put(self, array: np.ndarray) -> int:
        """Add an array; returns its offset."""
        offset = len(self.data)
        self.data += np.ascontiguousarray(array).tobytes()
        return offset

    def write(self, folder: Path) -> None:
        """Write cases.json, a case a line, and data.bin."""
        lines = ",\n".join(json.dumps(case, sort_keys=True) for case in self.cases)
        (folder / "cases.json").write_text(f'{{"schema_number": {SCHEMA}, "cases": [\n{lines}\n]}}\n')
        (folder / "data.bin").write_bytes(bytes(self.data))


def write_vectors(folder: Path, photos: Sequence[Image.Image]) -> None:
    """All vectors: generated pictures and outputs, and each photo in three ways."""
    vectors = Vectors()
    for seed in range(GENERATED):
        random = np.random.default_rng(seed)
        add_preprocessing(vectors, f"generated {seed}", _picture(random, most=200), _artifact(random, most=96))
    for number, photo in enumerate(photos):
        for resize in ("stretch", "crop", "letterbox"):
            random = np.random.default_rng([number, len(resize)])
            add_preprocessing(vectors, f"photo {number} {resize}", photo, _artifact(random, 224, resize=resize))
    for kind in DECODERS:
        for seed in range(DECODED):
            add_decoding(vectors, kind, seed, most=40)
    vectors.write(folder)


def write_golden(folder: Path) -> None:
    """A few small cases of everything."""
    vectors = Vectors()
    for seed in range(GOLDEN):
        random = np.random.default_rng(1000 + seed)
        add_preprocessing(vectors, f"golden {seed}", _picture(random, most=24), _artifact(random, most=16))
    for kind in DECODERS:
        for seed in (1000, 1001):
            add_decoding(vectors, kind, seed, most=6)
    vectors.write(folder)


def read_photos(wheel: Path, count: int = 10) -> list[Image.Image]:
    """The first photographs in the wheel of foolbox."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("foolbox/data/imagenet_"))
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names[:count]]


def add_preprocessing(vectors: Vectors, name: str, picture: Image.Image, artifact: Artifact) -> None:
    """A picture, RGB or RGBA, with its resized pixels and what the model's input stores."""
    (spec,) = artifact.inputs
    pixels = apply(picture, artifact.preprocess)
    stored = to_stored(arrange(normalise(pixels[None], artifact.preprocess), spec), spec)
    vectors.cases.append(
        {
            "name": name,
            "artifact": json.dumps(artifact.as_json()),
            "picture": {"width": picture.width, "height": picture.height, "channels": len(picture.getbands())},
            "offsets": {
                "picture": vectors.put(np.asarray(picture)),
                "pixels": vectors.put(pixels),
                "input": vectors.put(stored),
            },
        }
    )


def add_decoding(vectors: Vectors, kind: str, seed: int, most: int) -> None:
    """Random outputs of one kind of task, stored as float32 or 8 bits, and what they mean."""
    random = np.random.default_rng([seed, len(kind)])
    DECODERS[kind](vectors, f"{kind} {seed}", random, most)


def _picture(random: np.random.Generator, most: int) -> Image.Image:
    """Smooth and noisy pictures of any proportion, one of four with transparency."""
    width, height = (int(size) for size in random.integers(1, most, 2))
    bands = 4 if random.random() < 0.25 else 3
    coarse = random.integers(0, 256, (int(random.integers(1, 9)), int(random.integers(1, 9)), bands), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    noise = random.integers(-40, 41, (height, width, bands)) * int(random.integers(0, 2))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _artifact(random: np.random.Generator, most: int, resize: str | None = None, **changes: Any) -> Artifact:
    height, width = (int(size) for size in random.integers(8, most + 1, 2))
    last = bool(random.integers(2))
    preprocess = Preprocess.model_validate(
        {
            "height": height,
            "width": width,
            "resize": resize or str(random.choice(["stretch", "crop", "letterbox"])),
            "crop_share": float(random.uniform(0.2, 1.0)),
            "padding": int(random.integers(0, 256)),
            "interpolation": str(random.choice(["bilinear", "bicubic"])),
            "mean": [float(value) for value in random.uniform(0, 255, 3)],
            "std": [float(value) for value in random.uniform(1, 255, 3)],
        }
    )
    shape = (1, height, width, 3) if last else (1, 3, height, width)
    return Artifact.model_validate(
        {
            "file": "model.tflite",
            "runtime": "tflite",
            "backend": "XNNPACK",
            "precision": "fp32",
            "sha256": "0" * 64,
            "bytes": 1,
            "inputs": [_spec(random, "picture", shape, "NHWC" if last else "NCHW", reach=2.5)],
            "outputs": [],
            "task": "classification",
            "labels": [],
            "preprocess": preprocess,
        }
        | changes
    )


def _spec(
    random: np.random.Generator, name: str, shape: Sequence[int], layout: str = "other", reach: float = 6.0
) -> TensorSpec:
    """float32, or 8 bits whose range is about -reach..reach."""
    dtype = str(random.choice(["float32", "int8", "uint8"]))
    if dtype == "float32":
        return TensorSpec.model_validate({"name": name, "shape": shape, "dtype": dtype, "layout": layout})
    zero = int(random.integers(-20, 20)) + (128 if dtype == "uint8" else 0)
    scale = float(np.float32(random.uniform(0.8, 1.2) * reach / 128))
    return TensorSpec.model_validate(
        {"name": name, "shape": shape, "dtype": dtype, "layout": layout, "scale": scale, "zero_point": zero}
    )


def _decoding_case(
    vectors: Vectors,
    name: str,
    artifact: Artifact,
    outputs: Mapping[str, np.ndarray],
    expected: Mapping[str, Any],
    **more: Any,
) -> None:
    offsets = {key: vectors.put(values) for key, values in outputs.items()}
    vectors.cases.append(
        {
            "name": name,
            "artifact": json.dumps(artifact.as_json()),
            "offsets": offsets,
            "expected": dict(expected),
            **more,
        }
    )


def _described(random: np.random.Generator, decoding: Decoding, outputs: Sequence[TensorSpec], labels: int) -> Artifact:
    names = tuple(f"label {index}" for index in range(labels))
    return _artifact(random, 96, task=decoding.kind, decoding=decoding.as_json(), outputs=list(outputs), labels=names)


def _stored_and_real(spec: TensorSpec, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the file's output stores, and the real values that this stands for, without the batch dimension."""
    stored = to_stored(values.astype(np.float32).reshape(spec.shape), spec)
    return stored, to_real(stored, spec)[0]


def _classification(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    count = int(random.integers(2, most + 2))
    spec = _spec(random, "logits", (1, count))
    stored, real = _stored_and_real(spec, random.normal(0, 4, count))
    artifact = _described(random, ClassificationDecoding(), [spec], count)
    _decoding_case(vectors, name, artifact, {"0": stored}, {"probabilities": decode.probabilities(real).tolist()})


def _regression(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    reads = str(random.choice(["output", "expected_index", "expected_count"]))
    count = 1 if reads == "output" else int(random.integers(2, most + 2))
    spec = _spec(random, "number", (1, count))
    stored, real = _stored_and_real(spec, random.normal(0, 2, count))
    low = float(random.uniform(-50, 30)) if random.random() < 0.5 else None
    decoding = RegressionDecoding.model_validate(
        {
            "reads": reads,
            "scale": float(random.uniform(-40, 40)),
            "offset": float(random.uniform(-5, 50)),
            "minimum": low,
            "maximum": float(random.uniform(30, 100)) if random.random() < 0.5 else None,
            "unit": str(random.choice(["", "years", "µm"])),
        }
    )
    artifact = _described(random, decoding, [spec], 0)
    _decoding_case(vectors, name, artifact, {"0": stored}, {"number": decode.number(real, decoding)})


def _multi_label(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    count = int(random.integers(1, most + 1))
    spec = _spec(random, "logits", (1, count))
    stored, real = _stored_and_real(spec, random.normal(0, 4, count))
    decoding = MultiLabelDecoding(thresholds=tuple(float(value) for value in random.uniform(0, 1, count)))
    values, present = decode.present_labels(real, decoding)
    expected = {"probabilities": values.tolist(), "present": np.flatnonzero(present).tolist()}
    _decoding_case(vectors, name, _described(random, decoding, [spec], count), {"0": stored}, expected)


def _detection(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    """Clusters of boxes over and beyond the input, some without an extent, many with equal scores."""
    count, labels = int(random.integers(1, 3 * most)), int(random.integers(1, 5))
    swapped = bool(random.integers(2))
    decoding = DetectionDecoding(
        boxes=int(swapped),
        scores=int(not swapped),
        score_threshold=float(random.uniform(0.05, 0.6)),
        iou_threshold=float(random.uniform(0.1, 0.9)),
        most=int(random.integers(1, 20)),
    )
    box_spec = _spec(random, "boxes", (1, count, 4), reach=110)
    score_spec = _spec(random, "scores", (1, count, labels), reach=1.2)
    centres = random.uniform(-10, 100, (4, 4))[random.integers(0, 4, count)]
    boxes = np.abs(centres + random.normal(0, 4, (count, 4))) * (random.random((count, 1)) > 0.05)
    scores = np.round(random.uniform(0, 1, (count, labels)), int(random.integers(1, 4)))
    stored_boxes, real_boxes = _stored_and_real(box_spec, boxes)
    stored_scores, real_scores = _stored_and_real(score_spec, scores)
    ordered = [score_spec, box_spec] if swapped else [box_spec, score_spec]
    artifact = _described(random, decoding, ordered, labels)
    photo = (int(random.integers(1, 4000)), int(random.integers(1, 4000)))
    found = decode.detections(real_boxes, real_scores, decoding, artifact.preprocess, photo)
    _decoding_case(
        vectors,
        name,
        artifact,
        {str(decoding.boxes): stored_boxes, str(decoding.scores): stored_scores},
        {"detections": [{"label": one.label, "score": one.score, "box": list(one.box)} for one in found]},
        photo={"width": photo[0], "height": photo[1]},
    )


def _embedding(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    count = int(random.integers(2, most + 2))
    spec = _spec(random, "embedding", (1, count))
    base = random.normal(0, 2, count)
    stored, real = _stored_and_real(spec, base * (random.random() > 0.1))
    other_stored, other_real = _stored_and_real(spec, base * random.normal(0, 1) + random.normal(0, 1, count))
    decoding = EmbeddingDecoding(threshold=float(random.uniform(-0.5, 0.9)))
    first, second = decode.unit_vector(real), decode.unit_vector(other_real)
    expected = {
        "unit": first.tolist(),
        "cosine": decode.cosine(first, second),
        "same": decode.is_same(first, second, decoding),
    }
    outputs = {"0": stored, "other": other_stored}
    _decoding_case(vectors, name, _described(random, decoding, [spec], 0), outputs, expected)


def _style(vectors: Vectors, name: str, random: np.random.Generator, most: int) -> None:
    height, width = (int(size) for size in random.integers(1, most + 1, 2))
    last = bool(random.integers(2))
    shape = (1, height, width, 3) if last else (1, 3, height, width)
    spec = _spec(random, "picture", shape, "NHWC" if last else "NCHW", reach=1.5)
    stored, real = _stored_and_real(spec, random.normal(0.4, 0.4, shape))
    decoding = StyleDecoding(scale=float(random.choice([255.0, 127.5])), offset=float(random.choice([0.0, 127.5])))
    artifact = _described(random, decoding, [spec], 0)
    painted = decode.picture(real, spec.layout, decoding)
    _decoding_case(vectors, name, artifact, {"0": stored, "painted": painted}, {"width": width, "height": height})


DECODERS = {
    "classification": _classification,
    "regression": _regression,
    "multi_label": _multi_label,
    "detection": _detection,
    "embedding": _embedding,
    "style": _style,
}
