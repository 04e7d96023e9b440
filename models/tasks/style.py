"""Style transfer: the network gives its picture back in the style of another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import Decoding, StyleDecoding
from phonefit.models.families.vgg import VGG16_WEIGHTS
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.options import StyleOptions
from phonefit.models.tasks.resampling import bootstrap_interval
from phonefit.models.tasks.task import Floats, Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT = StyleOptions()
LEVELS = 255.0
SAME = 5.0
"""Two pictures look the same when their levels, of 255, differ by at most this on average."""
LEAST_VARIANCE = 1e-3  # of pictures in 0..1: a deviation of 8 levels
AT_ONCE = 16  # pictures whose features are in memory together


@dataclass(frozen=True)
class Style(Task):
    """A picture, black 0 and white 1: float32 [N, 3 x height x width] in the network, [1, 3, height, width] in a file.

    The target is the picture itself, as the network saw it: uint8 [N, 3, height, width].
    """

    options: StyleOptions = DEFAULT

    name = "style"
    target = "picture"
    quality = "perceptual_loss"
    better = "lower"

    @property
    def decoding(self) -> Decoding:
        """Levels of 0..255."""
        return StyleDecoding(scale=LEVELS)

    def fitted(self, labels: Sequence[str], targets: Targets, preprocess: Preprocess) -> Self:
        """The same, once its weights are known to be there.

        Raises:
            ModelError: there are none, with what to install.
        """
        self._weights()
        return self

    def outputs(self, labels: Sequence[str], preprocess: Preprocess) -> int:
        """Three levels for each pixel of the input."""
        return 3 * preprocess.height * preprocess.width

    def exported(self, network: "nn.Module", preprocess: Preprocess) -> "nn.Module":
        """The network with a picture as its output: by a hook, so that its layers keep their names."""
        size = (1, 3, preprocess.height, preprocess.width)
        network.register_forward_hook(lambda _, inputs, output: output.reshape(size))
        return network

    def shown(self, targets: "Tensor", pixels: "Tensor") -> "Tensor":
        """The pictures."""
        return pixels.permute(0, 3, 1, 2)

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Content loss and style loss, each times its weight."""
        content, style = self._losses(outputs, targets)
        return (self.options.content_weight * content + self.options.style_weight * style).mean()

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """Squared distance of the pictures as a share of the teacher's variance, so of the size of the other losses."""
        return (student - teacher).square().mean() / teacher.var().clamp(min=LEAST_VARIANCE)

    def metrics(self, outputs: Floats, targets: Targets) -> Metrics:
        """The sum that `loss` gives, with an interval by the bootstrap, and its two parts without their weights."""
        content, style = self._judged(outputs, targets)
        both = self._weighed(content, style)
        low, high = bootstrap_interval(lambda rows: float(both[rows].mean()), len(both))
        return {
            "perceptual_loss": float(both.mean()),
            "perceptual_loss_low": low,
            "perceptual_loss_high": high,
            "content_loss": float(content.mean()),
            "style_loss": float(style.mean()),
        }

    def baseline(self, train: Targets, targets: Targets) -> tuple[str, Metrics]:
        """The picture as it is: no content is lost, and no style is gained."""
        unchanged = targets.reshape(len(targets), -1).astype(np.float32) / np.float32(LEVELS)
        return "the unchanged picture", self.metrics(unchanged, targets)

    def decode(self, outputs: Floats) -> NDArray[np.uint8]:
        """Levels of the picture: uint8 [N, 3 x height x width]."""
        return np.clip(np.rint(outputs.astype(np.float64) * LEVELS), 0, LEVELS).astype(np.uint8)

    def agree(self, outputs: Floats, others: Floats) -> NDArray[np.bool_]:
        """Whether the levels differ by at most `SAME` on average."""
        apart = np.abs(self.decode(outputs).astype(np.int16) - self.decode(others)).mean(axis=1)
        close: NDArray[np.bool_] = apart <= SAME
        return close

    def mistakes(self, outputs: Floats, targets: Targets) -> Floats:
        """The loss of each picture."""
        return self._weighed(*self._judged(outputs, targets))

    def _weights(self) -> Path:
        return self.options.features or VGG16_WEIGHTS.locate()

    def _weighed(self, content: Floats, style: Floats) -> Floats:
        weighed: Floats = (self.options.content_weight * content + self.options.style_weight * style).astype(np.float32)
        return weighed

    def _judged(self, outputs: Floats, targets: Targets) -> tuple[Floats, Floats]:
        """Content loss and style loss of each picture, as it is shown: held in 0..1."""
        import torch

        shown, wanted = np.clip(outputs, 0, 1), np.ascontiguousarray(targets)
        with torch.inference_mode():
            content, style = self._losses(torch.from_numpy(shown), torch.from_numpy(wanted))
        return content.numpy(), style.numpy()

    def _losses(self, outputs: "Tensor", targets: "Tensor") -> "tuple[Tensor, Tensor]":
        from torch import cat

        from phonefit.models.tasks.perceptual import content_and_style, loss_network, style_grams

        weights = self._weights()
        height, width = targets.shape[2:]
        network = loss_network(weights, str(outputs.device))
        style = style_grams(weights, self.options.picture, height, width, str(outputs.device))
        drawn = outputs.reshape(targets.shape) * LEVELS
        parts = [
            content_and_style(network, drawn[start : start + AT_ONCE], targets[start : start + AT_ONCE].float(), style)
            for start in range(0, len(targets), AT_ONCE)
        ]
        content, missing = (cat(losses) for losses in zip(*parts, strict=True))
        return content, missing
