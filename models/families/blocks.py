"""Building blocks that the families share. Imports torch: families import this module inside build().

Every block is made of module instances with no channel count in forward(), so that pruning may change the channels,
and of operators that all converters take.
"""

import math
from collections import OrderedDict

from torch import Tensor, nn

from phonefit.models.spec import HeadOptions

Size = tuple[int, int]


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, at least `divisor`, never more than a tenth below `channels`.

    The rule of MobileNet and EfficientNet: odd channel counts are slow on vector units.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def scale_blocks(blocks: int, depth: float) -> int:
    """Number of blocks of a stage at that depth: rounded half up, at least one."""
    return max(1, int(blocks * depth + 0.5))


def strided(size: Size, stride: int) -> Size:
    """Height and width after a convolution or pooling with SAME padding."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis of `size` pixels in TensorFlow's SAME padding: the odd one goes after."""
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, and an activation unless `activation` is None.

    With `size`, the height and width of its input, the padding is TensorFlow's SAME at that size, which puts one more
    zero after than before where stride is 2 and the size is even: a pad layer then, since a convolution pads evenly.
    (A kernel with one more row and column of zeros would do without, but 6x6 depthwise kernels are slow in XNNPACK.)
    Without `size` the padding is kernel // 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
        momentum: float = 0.1,
        size: Size | None = None,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        padding = (kernel // 2, kernel // 2)
        if size is not None:
            (top, bottom), (left, right) = (same_padding(pixels, kernel, stride) for pixels in size)
            padding = (top, left)
            if (top, left) != (bottom, right):
                layers["pad"] = nn.ZeroPad2d((left, right, top, bottom))
                padding = (0, 0)
        layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        layers["norm"] = nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)
        if activation is not None:
            layers["activation"] = activation()
        super().__init__(layers)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree (arXiv 1801.04381).

    An `expansion` of 1 has no expanding layer. ReLU6 keeps the ranges narrow for int8.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        expansion: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        size: Size | None = None,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            layers["expand"] = ConvNorm(inputs, hidden, 1, activation=nn.ReLU6, eps=eps, momentum=momentum)
        layers["depthwise"] = ConvNorm(
            hidden, hidden, kernel, stride, groups=hidden, activation=nn.ReLU6, eps=eps, momentum=momentum, size=size
        )
        layers["project"] = ConvNorm(hidden, outputs, 1, activation=None, eps=eps, momentum=momentum)
        self.body = nn.Sequential(layers)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] -> float32 [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        outputs: Tensor = self.body(inputs)
        return outputs + inputs if self.adds_input else outputs


class Residual(nn.Module):
    """activation(shortcut(x) + body(x)) (arXiv 1512.03385), where `activation` is ReLU if none is given."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.activation = nn.ReLU() if activation is None else activation

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 [N, C, H, W] -> what body and shortcut both give."""
        outputs: Tensor = self.activation(self.shortcut(inputs) + self.body(inputs))
        return outputs


class Classifier(nn.Module):
    """Features, global average pooling, head: the shape of every family here.

    Pooling to one value per channel makes the head's size independent of the input's, and safe to prune.
    """

    def __init__(
        self, features: nn.Module, channels: int, options: HeadOptions, outputs: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = make_head(channels, options, outputs, activation)
        initialise_layers(self)

    def forward(self, pictures: Tensor) -> Tensor:
        """float32 [N, 3, height, width] -> float32 [N, outputs]."""
        logits: Tensor = self.head(self.flatten(self.pool(self.features(pictures))))
        return logits


def make_head(channels: int, options: HeadOptions, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """Hidden layers with activations, dropout, then the layer `output`: float32 [N, channels] -> [N, outputs]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, size in enumerate(options.hidden):
        layers[f"hidden{index}"] = nn.Linear(channels, size)
        layers[f"activation{index}"] = activation()
        channels = size
    layers["dropout"] = nn.Dropout(options.dropout)
    layers["output"] = nn.Linear(channels, outputs)
    return nn.Sequential(layers)


def initialise_layers(network: nn.Module) -> None:
    """Random start for training from scratch: He et al. 2015 (arXiv 1502.01852) for convolutions and hidden layers.

    The last layer starts near zero, so that the first losses are those of an undecided model.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            if module is linear[-1]:
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
