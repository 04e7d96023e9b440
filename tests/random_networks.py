"""Random small networks with what makes pruning hard: residuals, concatenations, depthwise and grouped convolutions,
channel shuffle, attention in heads, flattened maps.
"""

import random

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(channels, 2 * channels), ConvNorm(2 * channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Branches(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = ConvNorm(channels, 8), ConvNorm(channels, channels - 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


class Depthwise(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(ConvNorm(channels, channels, 3, groups=channels), ConvNorm(channels, channels))


class Multiplier(nn.Sequential):
    """Two filters for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(ConvNorm(channels, 2 * channels, 3, groups=channels), ConvNorm(2 * channels, channels))


class Grouped(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            ConvNorm(channels, 2 * channels),
            ConvNorm(2 * channels, 4 * channels, 3, 4),
            ConvNorm(4 * channels, channels),
        )


class Shuffle(nn.Module):
    """A ShuffleNet unit: half passes, half is filtered, then the halves are interleaved (arXiv 1807.11164)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ConvNorm(channels // 2, channels // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept, filtered = x.chunk(2, 1)
        x = torch.cat([kept, self.body(filtered)], 1)
        count, channels, height, width = x.shape
        return x.reshape(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, -1, height, width)


class Attention(nn.Module):
    """Self-attention over places. `fixed` says what the code fixes: the number of heads or their width."""

    def __init__(self, channels: int, fixed: str) -> None:
        super().__init__()
        self.width, self.heads, self.fixed = 4, channels // 4, fixed
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)

    def split(self, x: Tensor) -> Tensor:
        shape = (-1, self.width) if self.fixed == "width" else (self.heads, -1)
        return x.reshape(*x.shape[:2], *shape).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        query, key, value = (self.split(one(places)) for one in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) / self.width**0.5).softmax(-1)
        mixed = self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Gate(nn.Module):
    """Squeeze and excitation (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class HeadsOfFixedNumber(Attention):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, "number")


class HeadsOfFixedWidth(Attention):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, "width")


BLOCKS: dict[str, type[nn.Module]] = {
    "residual": Residual,
    "branches": Branches,
    "depthwise": Depthwise,
    "multiplier": Multiplier,
    "grouped": Grouped,
    "shuffle": Shuffle,
    "heads of fixed number": HeadsOfFixedNumber,
    "heads of fixed width": HeadsOfFixedWidth,
    "gate": Gate,
}


def build(outputs: int, blocks: list[str], channels: int = 16, flatten: bool = False, seed: int = 0) -> nn.Module:
    """A network of these blocks, one after the other, with random parameters and statistics everywhere."""
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, stride=4), *(BLOCKS[name](channels) for name in blocks)]
    layers += [ConvNorm(channels, 24), nn.AdaptiveAvgPool2d(2 if flatten else 1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(96 if flatten else 24, outputs))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in network.named_buffers():
            if buffer.dtype.is_floating_point:
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if "var" in name else -0.5))
    return network.eval()


def random_blocks(source: random.Random, count: int = 3) -> list[str]:
    return [source.choice(list(BLOCKS)) for _ in range(count)]
