"""ResNet 18, 34 and 50 (arXiv 1512.03385).

In the bottleneck block the 3x3 convolution carries the stride, as most published weights have it.
"""

from functools import partial
from typing import TYPE_CHECKING

from phonefit.models.families import IMAGENET_MEAN, IMAGENET_STD
from phonefit.models.spec import Architecture, ModelSpec, Preprocess

if TYPE_CHECKING:
    from torch import nn

STAGE_CHANNELS = (64, 128, 256, 512)
# Name -> blocks of the four stages, whether blocks are bottlenecks, millions of parameters.
VARIANTS = {
    "resnet18": ((2, 2, 2, 2), False, 11.69),
    "resnet34": ((3, 4, 6, 3), False, 21.80),
    "resnet50": ((3, 4, 6, 3), True, 25.56),
}


def _build(stage_blocks: tuple[int, ...], bottleneck: bool, architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import Classifier, ConvNorm, Residual, round_channels, scale_blocks

    channels = round_channels(STAGE_CHANNELS[0] * architecture.width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = ConvNorm(3, channels, 7, 2)
    layers["pool"] = nn.MaxPool2d(3, 2, 1)
    for stage, stage_channels in enumerate(STAGE_CHANNELS):
        inner = round_channels(stage_channels * architecture.width)
        outputs = 4 * inner if bottleneck else inner
        blocks = []
        for block in range(scale_blocks(stage_blocks[stage], architecture.depth)):
            stride = 2 if block == 0 and stage > 0 else 1
            if bottleneck:
                body = [ConvNorm(channels, inner, 1), ConvNorm(inner, inner, 3, stride)]
                last = ConvNorm(inner, outputs, 1, activation=None)
            else:
                body = [ConvNorm(channels, inner, 3, stride)]
                last = ConvNorm(inner, outputs, 3, activation=None)
            changes = stride != 1 or channels != outputs
            shortcut = ConvNorm(channels, outputs, 1, stride, activation=None) if changes else nn.Identity()
            blocks.append(Residual(nn.Sequential(*body, last), shortcut))
            channels = outputs
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
    return Classifier(nn.Sequential(layers), channels, architecture.head, architecture.outputs, nn.ReLU)


SPECS = tuple(
    ModelSpec(
        name=name,
        summary=f"ResNet: {'bottleneck' if bottleneck else 'basic'} residual blocks; 224 px",
        build=partial(_build, blocks, bottleneck),
        preprocess=Preprocess(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        minimum_size=32,
        parameters=parameters,
    )
    for name, (blocks, bottleneck, parameters) in VARIANTS.items()
)
