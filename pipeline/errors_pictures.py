"""What the page of errors shows of style transfer: what each picture gained, and pictures before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phonefit.models.decoding import StyleDecoding
from phonefit.models.targets import Targets
from phonefit.models.tasks.task import Floats, Task

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Version:
    """The pictures of one side, as they are or redrawn.

    Attributes:
        name: what to call it.
        pixels: uint8 RGB [N, height, width, 3].
        losses: of each picture, float32 [N].
    """

    name: str
    pixels: NDArray[np.uint8]
    losses: Floats


def versions(outputs: Mapping[str, Floats], targets: Targets, task: Task, decoding: StyleDecoding) -> list[Version]:
    """The unchanged pictures, then what each of `outputs`, float32 [N, outputs], makes of them."""
    unchanged = ((targets.reshape(len(targets), -1) - decoding.offset) / decoding.scale).astype(np.float32)
    found = []
    for name, rows in {"unchanged": unchanged, **outputs}.items():
        pixels = np.asarray(task.decode(rows), dtype=np.uint8).reshape(targets.shape).transpose(0, 2, 3, 1)
        found.append(Version(name, pixels, task.mistakes(rows, targets)))
    return found


def losses_figure(unchanged: Version, redrawn: list[Version]) -> "Figure":
    """Loss of each picture as it is, against its losses redrawn."""
    from plotly.graph_objects import Figure, Scatter

    figure, before = Figure(), unchanged.losses
    for version in redrawn:
        figure.add_trace(Scatter(x=before, y=version.losses, mode="markers", name=version.name))
    ends = [float(before.min()), float(before.max())]
    figure.add_trace(Scatter(x=ends, y=ends, mode="lines", name="nothing gained"))
    figure.update_layout(xaxis_title="loss of the unchanged picture", yaxis_title="loss redrawn")
    return figure
