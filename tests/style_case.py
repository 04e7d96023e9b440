"""What tests of style transfer share: a VGG16 that is small enough for them, with random weights.

Random features tell textures apart too (He et al. 2016, arXiv 1606.04801), so the losses mean something.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

CHANNELS = (4, 4, 6, 6, 8, 8, 8, 8, 8, 8)
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
"""Places of the first ten convolutions among the features of torchvision's vgg16."""


def tiny_vgg(folder: Path) -> Path:
    """A weights file with the names of torchvision's vgg16."""
    torch.manual_seed(0)
    state, inputs = {}, 3
    for place, outputs in zip(TORCHVISION, CHANNELS, strict=True):
        state[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{place}.bias"] = 0.1 * torch.rand(outputs)
        inputs = outputs
    path = folder / "tiny_vgg.safetensors"
    save_file(state, path)
    return path
