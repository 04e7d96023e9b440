"""How far a picture is from another one's content and from a style, by the features of a VGG16. Imports torch.

Losses of Johnson et al. 2016 (arXiv 1603.08155), after Gatys et al. 2015 (arXiv 1508.06576). Each is relative to what
it is compared with, so that other weights of the network, whose features have another size, leave the balance as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from phonefit.models.families.vgg import plain_convolutions
from phonefit.models.registry import model_spec
from phonefit.models.tasks.style_picture import style_picture
from phonefit.models.weights import load_weights_file

STAGES = (2, 2, 3, 3)
"""Convolutions between poolings, as far as VGG16 is used; the activation after the last one of each is compared."""
CONTENT_STAGE = 2
SMALLEST = 1e-12


class VggFeatures(nn.Module):
    """The first convolutions of a VGG16: frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for weight, bias in weights[: sum(STAGES)]:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            self.convolutions.append(layer)
        usual = model_spec("vgg16").preprocess
        self.register_buffer("mean", torch.tensor(usual.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(usual.std).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, levels: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """float32 [N, 3, H, W] of 0..255 -> for each of the first stages float32 [N, C, H / 2^stage, W / 2^stage]."""
        values, found, layers = (levels - self.mean) / self.std, [], iter(self.convolutions)
        for stage, count in enumerate(STAGES[:stages]):
            if stage > 0:
                values = functional.max_pool2d(values, 2)
            for _ in range(count):
                values = functional.relu(next(layers)(values))
            found.append(values)
        return found


@contextmanager
def _kept() -> Iterator[None]:
    """For tensors that are kept: made in inference mode, they could not be used in training."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@lru_cache(maxsize=2)
def loss_network(path: Path, device: str) -> VggFeatures:
    """The network with the weights of a file: see `plain_convolutions`.

    Raises:
        FileFormatError: the file cannot be read safely.
        ModelError: it holds no VGG16.
    """
    with _kept():
        return VggFeatures(plain_convolutions(load_weights_file(path), str(path), sum(STAGES))).to(device)


def gram(features: Tensor) -> Tensor:
    """Means over the places of products of channels: float32 [N, C, H, W] -> [N, C, C]."""
    rows = features.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


@lru_cache(maxsize=8)
def style_grams(weights: Path, picture: Path | None, height: int, width: int, device: str) -> tuple[Tensor, ...]:
    """Gram matrices of the style, at the size of the pictures that get it, for each stage: float32 [1, C, C].

    Raises:
        DataError: the picture cannot be read.
    """
    with _kept():
        levels = torch.tensor(style_picture(picture, height, width)).float().permute(2, 0, 1)[None].to(device)
        return tuple(gram(features) for features in loss_network(weights, device)(levels))


def content_and_style(
    network: VggFeatures, drawn: Tensor, pictures: Tensor, style: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Content loss and style loss of each picture, float32 [N] and [N].

    Content: |F(drawn) - F(picture)|^2 / |F(picture)|^2 of the activations F after relu3_3. Style: the mean over
    relu1_2, relu2_2, relu3_3 and relu4_3 of |G(drawn) - G(style)|^2 / |G(style)|^2 of their Gram matrices G.

    Args:
        drawn, pictures: float32 [N, 3, H, W], 0..255.
        style: as `style_grams` gives it.
    """
    ours = network(drawn)
    with torch.no_grad():
        wanted = network(pictures, CONTENT_STAGE + 1)[CONTENT_STAGE]
    parts = [_relative(gram(features), other) for features, other in zip(ours, style, strict=True)]
    return _relative(ours[CONTENT_STAGE], wanted), torch.stack(parts).mean(0)


def _relative(values: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of each row as a share of the squared size of what is wanted."""
    return (values - wanted).square().flatten(1).sum(1) / wanted.square().flatten(1).sum(1).clamp(min=SMALLEST)
