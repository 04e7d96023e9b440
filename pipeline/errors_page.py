"""Where a file is wrong, as a page that opens without a network: a plot of all answers, and the worst pictures."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from phonefit.models.data.dataset import Side
from phonefit.models.targets import Target, TargetKind, Targets, target_text
from phonefit.models.tasks.task import Floats, Task
from phonefit.pipeline.context import Pictures

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WORST = 24
_STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "figure{display:inline-block;width:12em;margin:.5em;vertical-align:top;overflow-wrap:anywhere}"
    "img{width:100%;image-rendering:pixelated}"
)


def errors_page(title: str, side: Side, outputs: Floats, task: Task, pictures: Pictures) -> str:
    """The page.

    Args:
        outputs: of the file, float32 [N, outputs], for the pictures of `side`.
        task: as the file's outputs are read.
    """
    targets = pictures.targets(side)
    plot = _PLOTS[task.target](outputs, targets, task, pictures.labels)
    plot.update_layout(title=f"All {len(targets)} pictures of the {side} side")
    mistakes = task.mistakes(outputs, targets)
    order = np.argsort(-mistakes, kind="stable")[:WORST]
    wrong = [int(row) for row in order if mistakes[row] > 0]
    told = task.decode(outputs)
    shown = "".join(_figure(row, side, told[row], targets[row], task.target, pictures) for row in wrong)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        + str(plot.to_html(full_html=False, include_plotlyjs=True, default_height="480px"))
        + f"<h2>The {len(wrong)} worst, worst first</h2>{shown}</body></html>\n"
    )


def _figure(row: int, side: Side, told: object, target: object, kind: TargetKind, pictures: Pictures) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pictures.pixels(side)[row])).save(stream, format="PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    said, true = (target_text(kind, _target(value), pictures.labels) for value in (told, target))
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt=""><figcaption>{escape(pictures.names[side][row])}<br>'
        f"told {escape(said)}, is {escape(true)}</figcaption></figure>"
    )


def _target(value: object) -> Target:
    array = np.asarray(value)
    return tuple(int(present) for present in array) if array.ndim else array.item()


def _confusion(outputs: Floats, targets: Targets, task: Task, labels: tuple[str, ...]) -> "Figure":
    from plotly.graph_objects import Figure, Heatmap

    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (targets.astype(np.int64), task.decode(outputs).astype(np.int64)), 1)
    heat = Heatmap(z=counts, x=list(labels), y=list(labels), text=counts, texttemplate="%{text}", colorscale="Blues")
    figure = Figure(heat)
    figure.update_layout(xaxis_title="told", yaxis_title="is", yaxis_autorange="reversed")
    return figure


def _scatter(outputs: Floats, targets: Targets, task: Task, labels: tuple[str, ...]) -> "Figure":
    from plotly.graph_objects import Figure, Scatter

    told = task.decode(outputs)
    ends = [float(targets.min()), float(targets.max())]
    figure = Figure(Scatter(x=targets, y=told, mode="markers", name="pictures"))
    figure.add_trace(Scatter(x=ends, y=ends, mode="lines", name="right"))
    unit = f", {task.unit}" if task.unit else ""
    figure.update_layout(xaxis_title=f"{labels[0]}{unit}", yaxis_title=f"told{unit}")
    return figure


def _precision_and_recall(outputs: Floats, targets: Targets, task: Task, labels: tuple[str, ...]) -> "Figure":
    """A curve over all thresholds for each label, with the chosen one marked."""
    from plotly.graph_objects import Figure, Scatter

    figure, told = Figure(), task.decode(outputs)
    for label, name in enumerate(labels):
        present = targets[:, label] > 0.5
        if not present.any():
            continue
        hits = np.cumsum(present[np.argsort(-outputs[:, label], kind="stable")])
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
        figure.add_trace(Scatter(x=recall, y=precision, mode="lines", name=name))
        count = int(told[:, label].sum())
        if count:
            chosen = Scatter(x=[recall[count - 1]], y=[precision[count - 1]], mode="markers", name=f"{name}, chosen")
            figure.add_trace(chosen)
    figure.update_layout(xaxis_title="recall", yaxis_title="precision")
    return figure


_PLOTS = {"class": _confusion, "number": _scatter, "labels": _precision_and_recall}
