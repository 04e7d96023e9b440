"""A network that holds one layer alone, so that a device can be asked what that layer takes."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.data.dataset import Side, Unreadable
from phonefit.models.data.split import Conflict
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.record import Frozen
from phonefit.models.spec import Architecture, Preprocess
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.explain.costs import Called

LEAST_SIDE = 8  # of an architecture's input
MOST_PICTURES = 8  # that set the ranges: what they are does not matter for the time


class LayerShape(Frozen):
    """All that decides what a layer takes: its shape and that of its input. The weights do not matter.

    Attributes:
        outputs: channels; 0: no layer at all, the reference.
        height: of the input, like `width`; 1 for a vector.
        kernel: height and width; empty for a linear layer.
    """

    inputs: int
    height: int
    width: int
    outputs: int = 0
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def reference(self) -> "LayerShape":
        """The same network without the layer."""
        return LayerShape(inputs=self.inputs, height=self.height, width=self.width)


def shapes_of(called: Called) -> tuple[LayerShape, ...] | None:
    """The shape of each call; None for a linear layer on more than vectors, which a device is not asked about.

    A bias is always there: the file of a network has one for every convolution that a normalisation follows.
    """
    layer = called.layer
    if isinstance(layer, nn.Linear):
        if any(len(shape) != 1 for shape in called.inputs):
            return None
        one = LayerShape(inputs=layer.in_features, height=1, width=1, outputs=layer.out_features)
        return (one,) * len(called.inputs)
    return tuple(
        LayerShape(
            inputs=layer.in_channels,
            height=height,
            width=width,
            outputs=layer.out_channels,
            kernel=layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),
            dilation=layer.dilation,
            groups=layer.groups,
        )
        for _, height, width in called.inputs
    )


def build(outputs: int, shape: Mapping[str, JsonValue]) -> nn.Module:
    """The network: a 1x1 convolution of the picture gives the layer its input, a global average pool takes its output.

    float32 [N, 3, height, width] of `picture_size` -> float32 [N, outputs]. `shape` is a LayerShape as JSON.
    """
    wanted = LayerShape.model_validate(shape)
    stretch = (math.ceil(LEAST_SIDE / wanted.height), math.ceil(LEAST_SIDE / wanted.width))
    parts: list[nn.Module] = [nn.Conv2d(3, wanted.inputs, 1, stretch)]
    channels = wanted.outputs or wanted.inputs
    if wanted.kernel:
        parts.append(
            nn.Conv2d(
                wanted.inputs,
                wanted.outputs,
                (wanted.kernel[0], wanted.kernel[1]),
                (wanted.stride[0], wanted.stride[1]),
                wanted.padding if isinstance(wanted.padding, str) else (wanted.padding[0], wanted.padding[1]),
                (wanted.dilation[0], wanted.dilation[1]),
                wanted.groups,
            )
        )
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if wanted.outputs and not wanted.kernel:
        parts.append(nn.Linear(wanted.inputs, wanted.outputs))
    return nn.Sequential(*parts, nn.Linear(channels, outputs))


def picture_size(shape: LayerShape) -> tuple[int, int]:
    """Height and width of the picture that `build` makes the layer's input from."""
    height, width = (side * math.ceil(LEAST_SIDE / side) for side in (shape.height, shape.width))
    return height, width


def checkpoint_alone(shape: LayerShape, quantisation: Quantisation | None, folder: Path) -> Checkpoint:
    """The layer alone with seeded random weights, written into `folder`: the same shape is the same checkpoint."""
    height, width = picture_size(shape)
    architecture = Architecture(
        factory="phonefit.pipeline.explain.alone:build",
        arguments={"shape": shape.as_json()},
        outputs=1,
        height=height,
        width_pixels=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(1, shape.as_json())
    info = CheckpointInfo(
        architecture=architecture,
        task="classification",
        labels=NoisePictures.labels,
        preprocess=NoisePictures(height, width).preprocess,
        quantisation=quantisation,
    )
    return Checkpoint.save(folder, network.eval(), info)


class NoisePictures:
    """Noise, of any size: sets the ranges of a layer that is timed. It stands for no data set."""

    labels: tuple[str, ...] = ("any",)
    names: Mapping[Side, tuple[str, ...]] = {}
    unreadable: tuple[Unreadable, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    def __init__(self, height: int, width: int) -> None:
        self.preprocess = Preprocess(
            height=height, width=width, resize="stretch", mean=(127, 127, 127), std=(128, 128, 128)
        )
        self.digest = f"noise {height}x{width}"

    def pixels(self, side: Side) -> NDArray[np.uint8]:
        """RGB uint8 [N, height, width, 3]."""
        shape = (MOST_PICTURES, self.preprocess.height, self.preprocess.width, 3)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def targets(self, side: Side) -> NDArray[np.int64]:
        """int64 [N], all 0."""
        return np.zeros(MOST_PICTURES, dtype=np.int64)

    def inputs(self, side: Side, start: int, stop: int) -> Floats:
        """float32 [n, 3, height, width]."""
        values = (self.pixels(side)[start:stop].astype(np.float32) - 127) / 128
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    def calibration(self, description: CalibrationSet) -> Floats:
        """float32 [n, 3, height, width]: no more pictures than there are."""
        return self.inputs("train", 0, description.samples)
