"""Small real things that many tests share: a network, pictures on disk, a context."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.data.dataset import SIDES, Side
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.spec import Architecture, Preprocess
from phonefit.models.tasks import task
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.context import Context
from phonefit.pipeline.store import Store

LABELS = ("red", "green", "blue")
SIZE = 32
PREPROCESS = Preprocess(height=SIZE, width=SIZE, resize="stretch", mean=(127, 127, 127), std=(128, 128, 128))


def build(outputs: int, channels: int = 16):
    """A factory as a person would write one: convolutions, a depthwise block, a residual, a linear head."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            self.norm = nn.BatchNorm2d(channels)
            self.pointwise = nn.Conv2d(channels, channels, 1)

        def forward(self, x):
            return x + self.pointwise(nn.functional.relu6(self.norm(self.depthwise(x))))

    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
        Residual(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, outputs),
    )


ARCHITECTURE = Architecture(factory="tests.tiny:build", outputs=len(LABELS), height=SIZE, width_pixels=SIZE)


def colour_pixels(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy pictures whose strongest channel is their class: learnable in an epoch."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % len(LABELS)
    pixels = random.integers(0, 120, (count, SIZE, SIZE, 3))
    for index, target in enumerate(targets):
        pixels[index, :, :, target] += 90
    return pixels.astype(np.uint8), targets.astype(np.int64)


def write_folder(folder: Path, per_class: int = 12, seed: int = 0) -> Path:
    """An image folder: folder/CLASS/N.png."""
    pixels, targets = colour_pixels(per_class * len(LABELS), seed)
    for index, (picture, target) in enumerate(zip(pixels, targets, strict=True)):
        path = folder / LABELS[target] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


class TinyPictures:
    """Pictures in memory, for tests of what is above the data."""

    labels = LABELS
    preprocess = PREPROCESS
    digest = "tiny-pictures-1"
    unreadable = ()
    conflicts = ()

    def __init__(self, per_side: int = 48) -> None:
        self.names = {side: tuple(f"{side}{row}.png" for row in range(per_side)) for side in SIDES}
        self._sides = {side: colour_pixels(per_side, seed) for seed, side in enumerate(SIDES)}

    def pixels(self, side: Side) -> NDArray[np.uint8]:
        return self._sides[side][0]

    def targets(self, side: Side) -> NDArray[np.int64]:
        return self._sides[side][1]

    def inputs(self, side: Side, start: int, stop: int) -> Floats:
        values = (self.pixels(side)[start:stop].astype(np.float32) - 127) / 128
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def calibration(self, description: CalibrationSet) -> Floats:
        return self.inputs("train", 0, description.samples)


def tiny_context(folder: Path) -> Context:
    """A context over TinyPictures with its store in `folder`."""
    return Context(Store(folder / "runs"), TinyPictures(), task("classification"), seed=0, log=folder / "log.txt")


def tiny_checkpoint(folder: Path, quantised: bool = False, seed: int = 0) -> Checkpoint:
    """A checkpoint of the tiny network with seeded random weights and plausible BatchNorm statistics."""
    import torch

    torch.manual_seed(seed)
    network = build(len(LABELS)).train()
    pictures = TinyPictures()
    with torch.no_grad():
        for _ in range(20):
            network(torch.from_numpy(pictures.inputs("train", 0, 48)))
    info = CheckpointInfo(
        architecture=ARCHITECTURE,
        task="classification",
        labels=LABELS,
        preprocess=PREPROCESS,
        quantisation=Quantisation(calibration=CalibrationSet(samples=16)) if quantised else None,
    )
    return Checkpoint.save(folder, network.eval(), info)
