"""MobileNetV2 (arXiv 1801.04381).

`width` also scales the last convolution, which the paper leaves at 1280 channels below width 1: at small widths it
would hold most of the parameters.
"""

from typing import TYPE_CHECKING

from phonefit.models.families import IMAGENET_MEAN, IMAGENET_STD
from phonefit.models.spec import Architecture, ModelSpec, Preprocess

if TYPE_CHECKING:
    from torch import nn

# One row a stage: expansion, channels, blocks, stride. Table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, TOP = 32, 1280


def _build(architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import Classifier, ConvNorm, InvertedResidual, round_channels, scale_blocks

    channels = round_channels(STEM * architecture.width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = ConvNorm(3, channels, 3, 2, activation=nn.ReLU6)
    for stage, (expansion, stage_channels, stage_blocks, stage_stride) in enumerate(STAGES):
        outputs = round_channels(stage_channels * architecture.width)
        blocks = []
        for block in range(scale_blocks(stage_blocks, architecture.depth)):
            blocks.append(InvertedResidual(channels, outputs, 3, stage_stride if block == 0 else 1, expansion))
            channels = outputs
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
    top = round_channels(TOP * architecture.width)
    layers["top"] = ConvNorm(channels, top, 1, activation=nn.ReLU6)
    return Classifier(nn.Sequential(layers), top, architecture.head, architecture.outputs, nn.ReLU6)


SPEC = ModelSpec(
    name="mobilenet_v2",
    summary="MobileNetV2: inverted residuals, ReLU6; 224 px",
    build=_build,
    preprocess=Preprocess(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    minimum_size=32,
    parameters=3.50,
)
