"""The age network of face-api.js: a small Xception without batch normalisation, 112 px, one number, in years.

The TinyXception of Vincent Mühler: depthwise separable convolutions, each block's input activated first
(arXiv 1610.02357). The same network says the gender as well, which is left out here. Without pretrained weights another
family learns better.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from phonefit.models.families.face_resnet import MANIFEST as FACE_MANIFEST
from phonefit.models.families.face_resnet import PACKAGE, located
from phonefit.models.spec import Architecture, ModelSpec, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phonefit.models.families.blocks import Size

STEM, ENTRY, EXIT, TOP = 32, (64, 128), 256, 512
"""Channels of the first convolution, of the blocks that halve the size before and after the middle, of the last one."""
MIDDLE = 2
"""Blocks in the middle, which keep size and channels; `depth` scales their number."""
MANIFEST = FACE_MANIFEST.with_name("age_gender_model-weights_manifest.json")


def _build(architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import Classifier, round_channels, same_padding, scale_blocks, strided

    channels = round_channels(STEM * architecture.width)
    size = (architecture.height, architecture.width_pixels)
    (top, bottom), (left, right) = (same_padding(pixels, 3, 2) for pixels in size)
    padded = {"pad": nn.ZeroPad2d((left, right, top, bottom)), "conv": nn.Conv2d(3, channels, 3, 2)}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(OrderedDict(padded, activation=nn.ReLU()))
    size = strided(size, 2)
    for index, stage_channels in enumerate(ENTRY):
        outputs = round_channels(stage_channels * architecture.width)
        layers[f"entry{index}"] = _halving(channels, outputs, size, activated=index == 0)
        channels, size = outputs, strided(size, 2)
    layers["middle"] = nn.Sequential(*(_block(channels) for _ in range(scale_blocks(MIDDLE, architecture.depth))))
    outputs, last = (round_channels(count * architecture.width) for count in (EXIT, TOP))
    layers["exit"] = _halving(channels, outputs, size)
    layers["top"] = nn.Sequential(OrderedDict(separable=_separable(outputs, last), activation=nn.ReLU()))
    network = Classifier(nn.Sequential(layers), last, architecture.head, architecture.outputs, nn.ReLU)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:  # each output is of one channel and not activated
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
    return network


def _separable(inputs: int, outputs: int) -> "nn.Sequential":
    """A filter for each channel, then a mixture of the channels."""
    from collections import OrderedDict

    from torch import nn

    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=nn.Conv2d(inputs, outputs, 1)))


def _block(channels: int) -> "nn.Module":
    from torch import nn

    return _sum([channels] * 4, nn.Identity())


def _halving(inputs: int, outputs: int, size: "Size", activated: bool = False) -> "nn.Module":
    """A block of stride 2.

    Args:
        size: height and width of its input.
        activated: whether its input has been activated before.
    """
    from torch import nn

    # TensorFlow's SAME padding of a 3x3 maximum with stride 2: around an odd size, and after an even one
    pool = nn.MaxPool2d(3, 2, (size[0] % 2, size[1] % 2), ceil_mode=True)
    return _sum([inputs, outputs, outputs], nn.Conv2d(inputs, outputs, 1, 2), pool, activated)


def _sum(
    channels: list[int], shortcut: "nn.Module", pool: "nn.Module | None" = None, activated: bool = False
) -> "nn.Module":
    """Separable convolutions from each channel count to the next, each activated before, added to the shortcut."""
    from collections import OrderedDict
    from itertools import pairwise

    from torch import nn

    from phonefit.models.families.blocks import Residual

    body: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (before, after) in enumerate(pairwise(channels)):
        if index > 0 or not activated:
            body[f"activation{index}"] = nn.ReLU()
        body[f"separable{index}"] = _separable(before, after)
    if pool is not None:
        body["pool"] = pool
    return Residual(nn.Sequential(body), shortcut, nn.Identity())


PLACES = {
    r"entry_flow/conv_in/": "features/stem/conv/",
    r"entry_flow/reduction_block_(\d)/": r"features/entry\1/",
    r"middle_flow/main_block_(\d)/": r"features/middle/\1/",
    r"exit_flow/reduction_block/": "features/exit/",
    r"exit_flow/separable_conv/": "features/top/separable/",
    r"separable_conv(\d)/": r"body/separable\1/",
    r"expansion_conv/": "shortcut/",
    r"(separable\d?)/bias": r"\1/pointwise/bias",
    r"(depthwise|pointwise)_filter": r"\1/weight",
    r"fc/age/": "head/output/",
    r"(filters|weights)$": "weight",
}
"""Parts of the published names and ours, with slashes for dots; replaced one after the other."""


def _rename(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Names and layout of the published tensors to ours, without the layer that tells the gender."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("fc/gender/"):
            continue
        ours = name
        for published, own in PLACES.items():
            ours = re.sub(published, own, ours)
        if tensor.dim() == 4:  # a filter for each channel is [height, width, channels, 1] there
            tensor = tensor.permute((2, 3, 0, 1) if "depthwise" in ours else (3, 2, 0, 1))
        elif tensor.dim() == 2:
            tensor = tensor.T
        renamed[ours.replace("/", ".")] = tensor.contiguous()
    return renamed


WEIGHTS = PretrainedWeights(
    package=f"{PACKAGE} of npm",
    licence="MIT",
    outputs=1,
    published="mean absolute error of 4.54 years on photographs of 8 data sets, as face-api.js published it",
    locate=partial(located, MANIFEST, "face_age"),
    rename=_rename,
    number=True,
)
SPEC = ModelSpec(
    name="face_age",
    summary="face-api.js's ages of faces: separable convolutions without batch normalisation; for its weights; 112 px",
    build=_build,
    preprocess=Preprocess(
        height=112, width=112, resize="letterbox", padding=0, mean=(122.782, 117.001, 104.298), std=(255.0,) * 3
    ),
    minimum_size=16,
    parameters=0.93,
    pretrained=WEIGHTS,
)
