"""Where a detector is wrong: precision over recall of each label, and pictures with the boxes drawn."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from phonefit.models.targets import Targets, boxes_of, target_text
from phonefit.models.tasks.average_precision import RECALLS, precisions_of
from phonefit.models.tasks.task import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TRUE, TOLD = (30, 200, 60), (235, 40, 40)
ENLARGED = 3  # so that lines and small things are seen


def recall_figure(told: Floats, targets: Targets, labels: tuple[str, ...]) -> "Figure":
    """Curves over all thresholds, at an overlap of 50 %.

    Args:
        told: float32 [N, K, 6], label, corners and score of everything that is told, padded with -1.
        targets: float32 [N, M, 5], likewise without score.
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    curves = precisions_of(told, targets, labels).curves()[0]
    for label, name in enumerate(labels):
        if not np.isnan(curves[:, label]).any():
            figure.add_trace(Scatter(x=RECALLS, y=curves[:, label], mode="lines", name=name))
    figure.update_layout(xaxis_title="recall", yaxis_title="precision at an overlap of 50 %")
    return figure


def with_boxes(pixels: NDArray[np.uint8], told: Floats, true: Floats) -> NDArray[np.uint8]:
    """The picture, enlarged, with true boxes in green and told ones in red: uint8 RGB."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture = picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for rows, colour in ((true, TRUE), (told, TOLD)):
        for row in rows[rows[:, 0] >= 0]:
            left, top, right, bottom = (row[1:5] * ENLARGED).tolist()
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
    return np.asarray(picture)


def boxes_text(rows: Floats, labels: tuple[str, ...]) -> str:
    """How many of each label there are."""
    return target_text("boxes", boxes_of(rows), labels)
