"""VGG 11 and 16 with batch normalisation (arXiv 1409.1556).

The head differs from the paper's: global average pooling, then the head of the recipe. The original flattens 7x7x512
values into two layers of 4096: 124 of VGG 11's 133 million parameters, which no phone wants and which tie the network
to 224 pixels.
"""

from functools import partial
from typing import TYPE_CHECKING

from phonefit.models.families import IMAGENET_MEAN, IMAGENET_STD
from phonefit.models.spec import Architecture, ModelSpec, Preprocess

if TYPE_CHECKING:
    from torch import nn

STAGE_CHANNELS = (64, 128, 256, 512, 512)
# Name -> convolutions of the five stages, millions of parameters with this head.
VARIANTS = {
    "vgg11": ((1, 1, 2, 2, 2), 9.74),
    "vgg16": ((2, 2, 3, 3, 3), 15.23),
}


def _build(stage_layers: tuple[int, ...], architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import Classifier, ConvNorm, round_channels, scale_blocks

    channels = 3
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage, stage_channels in enumerate(STAGE_CHANNELS):
        outputs = round_channels(stage_channels * architecture.width)
        convolutions = []
        for _ in range(scale_blocks(stage_layers[stage], architecture.depth)):
            convolutions.append(ConvNorm(channels, outputs, 3))
            channels = outputs
        layers[f"stage{stage}"] = nn.Sequential(*convolutions, nn.MaxPool2d(2))
    return Classifier(nn.Sequential(layers), channels, architecture.head, architecture.outputs, nn.ReLU)


SPECS = tuple(
    ModelSpec(
        name=name,
        summary="VGG with batch normalisation and a pooled head; 224 px",
        build=partial(_build, convolutions),
        preprocess=Preprocess(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        minimum_size=32,
        parameters=parameters,
    )
    for name, (convolutions, parameters) in VARIANTS.items()
)
