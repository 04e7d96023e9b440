"""A trained network on which int8 does harm, for the tests of what prepares a network for it."""

import torch
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.spec import Architecture
from phonefit.pipeline.recipe_steps import TrainConfig
from phonefit.pipeline.train import train
from tests.tiny import LABELS, PREPROCESS, SIZE

ARCHITECTURE = Architecture(factory="tests.quantised_case:build", outputs=len(LABELS), height=SIZE, width_pixels=SIZE)
SPOILT = "2.depthwise"  # the layer that `spoil` makes hard to quantise


def build(outputs: int, activation: str = "ReLU"):
    """Two separable blocks in a row without residuals: each layer feeds the next one alone."""
    act = getattr(nn, activation)

    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
            self.norm = nn.BatchNorm2d(inputs)
            self.pointwise = nn.Conv2d(inputs, channels, 1)
            self.activation = act()

        def forward(self, x):
            return self.activation(self.pointwise(self.activation(self.norm(self.depthwise(x)))))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        act(),
        Block(16, 24),
        Block(24, 24),
        nn.Conv2d(24, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        act(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, outputs),
    )


def trained(folder, context, activation: str = "ReLU") -> Checkpoint:
    """A checkpoint of that network, trained on the context's pictures."""
    torch.manual_seed(0)
    network = build(len(LABELS), activation)
    config = TrainConfig(epochs=6, learning_rate=0.01, batch_size=16, shift=0)
    metrics = train(network, context, config, title="float").metrics
    architecture = ARCHITECTURE.model_copy(update={"arguments": {"activation": activation}})
    info = CheckpointInfo(
        architecture=architecture, task="classification", labels=LABELS, preprocess=PREPROCESS, metrics=metrics
    )
    return Checkpoint.save(folder, network.eval(), info)


def spoil(network: nn.Module, factor: float = 300.0) -> None:
    """Make the channels of one layer unlike by `factor`, and the next layer undo it: the outputs stay the same.

    With one scale for the whole weight, most of its channels are rounded to nothing.
    """
    block = network.get_submodule("2")
    with torch.no_grad():
        scale = torch.ones(16)
        scale[::4] = factor
        block.norm.weight.mul_(scale)
        block.norm.bias.mul_(scale)
        block.pointwise.weight.div_(scale.reshape(1, -1, 1, 1))


def spoilt(folder, checkpoint: Checkpoint) -> Checkpoint:
    """The same network, spoilt."""
    network = checkpoint.load()
    spoil(network)
    return Checkpoint.save(folder, network, checkpoint.info)
