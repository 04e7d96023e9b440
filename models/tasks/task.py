"""Task: what a model is for. One file per task beside this one; `TASKS` in the package lists them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]


class Task(Protocol):
    """Head size, loss, metric and decoding of one kind of task. Stateless."""

    name: str
    quality: str
    """Name of the metric that the search maximises, a key of what `metrics` returns; higher is better."""

    def outputs(self, labels: Sequence[str]) -> int:
        """Size of the network's output for these labels."""
        ...

    def loss(self, outputs: "Tensor", targets: "Tensor", class_weights: "Tensor | None") -> "Tensor":
        """Mean loss of a batch: outputs float32 [N, outputs], targets as the data source gives them."""
        ...

    def distillation_loss(self, student: "Tensor", teacher: "Tensor", temperature: float) -> "Tensor":
        """Mean distance between the student's and the teacher's outputs, both float32 [N, outputs]."""
        ...

    def metrics(self, outputs: Floats, targets: NDArray[np.int64]) -> Mapping[str, float]:
        """Metrics of raw outputs float32 [N, outputs]; values in 0..1 where the metric is a share."""
        ...

    def decisions(self, outputs: Floats) -> NDArray[np.int64]:
        """What a person would be told for each row, as numbers that can be compared for agreement."""
        ...
