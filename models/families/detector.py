"""A one-stage, anchor-free detector on the features of any family.

A feature pyramid (Lin et al. 2017, arXiv 1612.03144) with a box branch and a label branch of its own on each level
(decoupled as in YOLOX: Ge et al. 2021, arXiv 2107.08430). Each point of a level tells how far the sides of its box are
(FCOS: Tian et al. 2019, arXiv 1904.01355), and a score for each label. Imports torch: the registry imports this module
when it builds one.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phonefit.models.boxes import SIDES, points_of
from phonefit.models.errors import ModelError
from phonefit.models.families.blocks import ConvNorm, Size, initialise_layers
from phonefit.models.spec import DetectorOptions

FIRST_SCORE = 0.01  # of every point before training, so that the many that show nothing do not drown the others
FIRST_SIDE = 2.0  # strides from a point to each side before training
CLASSIFIER_ONLY = "top"  # the families' last, widening layer, which serves their pooled head


class BoxDecoding(nn.Module):
    """From the branches' answers to boxes in pixels and scores. In float whatever is quantised (see `IN_FLOAT`): boxes
    in pixels beside scores of 0..1 under one int8 scale would leave nothing of the scores.

    Attributes:
        joined: gives one tensor, as training takes it; otherwise two.
        suppression: what the scores go through last, with the boxes, where a file suppresses by itself.
    """

    points: Tensor

    def __init__(self, size: Size, strides: Sequence[int]) -> None:
        super().__init__()
        self.joined = True
        self.suppression: nn.Module | None = None
        self.register_buffer("points", torch.from_numpy(points_of(*size, strides)), persistent=False)

    def forward(self, sides: list[Tensor], logits: list[Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Of each level distances to left, top, right and bottom in strides, [N, 4, h, w], and logits, [N, L, h, w].

        Returns:
            boxes float32 [N, P, 4] as centre x, centre y, width, height in pixels, and scores [N, P, L]; joined:
            both flattened, [N, P x (4 + L)].
        """
        levels, start = [], 0
        for level, logit in zip(sides, logits, strict=True):
            points = self.points[start : start + level.shape[2] * level.shape[3]]
            distances = _by_point(level) * points[:, 2:]
            before, after = distances[..., :2], distances[..., 2:]
            box = torch.cat([points[:, :2] + (after - before) / 2, before + after], dim=2)
            levels.append((box, _by_point(logit).sigmoid()))
            start += len(points)
        # joined after the arithmetic: LiteRT's converter joins integers of unlike scales as if they were alike
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        if self.joined:
            return torch.cat([boxes.flatten(1), scores.flatten(1)], dim=1)
        return boxes, scores if self.suppression is None else self.suppression(boxes, scores)


def _by_point(level: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, h x w, C]."""
    return level.flatten(2).transpose(1, 2)


class DetectionHead(nn.Module):
    """Pyramid and branches: features of each stride -> distances and logits of each level."""

    def __init__(self, inputs: Sequence[int], channels: int, labels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(ConvNorm(count, channels, 1, activation=None) for count in inputs)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.boxes = nn.ModuleList(_branch(channels, SIDES, clamped=True) for _ in inputs)
        self.labels = nn.ModuleList(_branch(channels, labels, clamped=False) for _ in inputs)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """[N, inputs, h, w] of each stride, the finest first -> see `BoxDecoding`."""
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for place in reversed(range(len(levels) - 1)):
            levels[place] = levels[place] + self.upsample(levels[place + 1])
        sides = [branch(level) for branch, level in zip(self.boxes, levels, strict=True)]
        return sides, [branch(level) for branch, level in zip(self.labels, levels, strict=True)]


def _branch(channels: int, outputs: int, clamped: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["hidden"] = ConvNorm(channels, channels, 3, activation=nn.ReLU6)
    layers["output"] = nn.Conv2d(channels, outputs, 1)
    if clamped:
        layers["clamp"] = nn.ReLU()
    return nn.Sequential(layers)


class Detector(nn.Module):
    """Features, head and decoding.

    Attributes:
        taps: places of the layers in `features` whose results the head gets.
    """

    def __init__(self, features: nn.Sequential, taps: Sequence[int], head: DetectionHead, decode: BoxDecoding) -> None:
        super().__init__()
        self.features, self.head, self.decode = features, head, decode
        self.taps = tuple(taps)

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """float32 [N, 3, height, width] -> see `BoxDecoding`."""
        levels, values = [], pictures
        for place, layer in enumerate(self.features):
            values = layer(values)
            if place in self.taps:
                levels.append(values)
        found: Tensor | tuple[Tensor, Tensor] = self.decode(*self.head(levels))
        return found


def detector(features: nn.Module, size: Size, labels: int, options: DetectorOptions) -> Detector:
    """A detector on layers that follow one another, each halving the size or keeping it; also for a factory of one's
    own.

    Args:
        size: height and width of the pictures in pixels.

    Raises:
        ModelError: the size is no multiple of the largest stride, or no layer has one of the strides.
    """
    coarsest = max(options.strides)
    if size[0] % coarsest or size[1] % coarsest:
        raise ModelError(
            f"a detector with strides {list(options.strides)} takes sides that are multiples of {coarsest}, "
            f"got {size[0]}x{size[1]}; change data.input or task.strides"
        )
    named = [(name, layer) for name, layer in features.named_children() if name != CLASSIFIER_ONLY]
    kept = nn.Sequential(OrderedDict(named))
    taps = {stride: (place, channels) for place, (stride, channels) in enumerate(_shapes(kept, size))}
    if missing := [stride for stride in options.strides if stride not in taps]:
        raise ModelError(f"no layer of the features has stride {missing[0]}; they have {sorted(taps)}")
    chosen = [taps[stride] for stride in options.strides]
    head = DetectionHead([channels for _, channels in chosen], options.channels, labels)
    network = Detector(kept, [place for place, _ in chosen], head, BoxDecoding(size, options.strides))
    initialise_layers(head)
    for box, label in zip(head.boxes, head.labels, strict=True):
        for branch, bias in ((box, FIRST_SIDE), (label, math.log(FIRST_SCORE / (1 - FIRST_SCORE)))):
            output = branch.get_submodule("output")
            assert isinstance(output, nn.Conv2d) and output.bias is not None
            nn.init.normal_(output.weight, std=0.01)
            # not all the same: LiteRT's converter quantises equal biases with the first channel's scale
            nn.init.normal_(output.bias, bias, std=0.01)
    return network


def _shapes(features: nn.Sequential, size: Size) -> list[tuple[int, int]]:
    """Stride and channels after each layer; the network is left as it is."""
    shapes, training = [], features.training
    features.eval()
    with torch.no_grad():
        values = torch.zeros(1, 3, *size)
        for layer in features:
            values = layer(values)
            shapes.append((size[0] // values.shape[2], values.shape[1]))
    features.train(training)
    return shapes
