"""The network that changes a picture by what it adds to it. Imports torch."""

from torch import Tensor, nn

from phonefit.models.families.blocks import initialise_layers

SMALL = 1e-4
"""Deviation of the last layer's first weights: the network starts as nearly the unchanged picture."""


class Redraw(nn.Module):
    """The input plus what `features` and `head` make of it, flattened.

    Nothing holds it in 0..1: a clamp has no gradient outside, and a first large step would end all learning there.
    """

    def __init__(self, features: nn.Module, head: nn.Conv2d) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.flatten = nn.Flatten()
        initialise_layers(self)
        nn.init.normal_(head.weight, std=SMALL)
        if head.bias is not None:
            nn.init.zeros_(head.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """float32 [N, 3, height, width] of 0..1 -> float32 [N, 3 x height x width], mostly of 0..1."""
        drawn: Tensor = self.flatten(pictures + self.head(self.features(pictures)))
        return drawn
