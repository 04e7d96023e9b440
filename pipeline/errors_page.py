"""Where a file is wrong, as a page that opens without a network: a plot of all answers, and the worst pictures."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phonefit.models.data.dataset import Side
from phonefit.models.decoding import EmbeddingDecoding, StyleDecoding
from phonefit.models.targets import Target, TargetKind, Targets, target_text
from phonefit.models.tasks.detection import Detection
from phonefit.models.tasks.task import Floats, Task
from phonefit.pipeline.context import Pictures
from phonefit.pipeline.errors_boxes import boxes_text, recall_figure, with_boxes
from phonefit.pipeline.errors_pairs import roc_figure, worst_pairs
from phonefit.pipeline.errors_pictures import Version, losses_figure, versions

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WORST = 24
_STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "figure{display:inline-block;width:12em;margin:.5em;vertical-align:top;overflow-wrap:anywhere}"
    "img{width:100%;image-rendering:pixelated}.pair img{width:50%}"
    "figure.redrawn{width:30em}.redrawn img{width:33%}"
)


def errors_page(
    title: str, side: Side, outputs: Floats, task: Task, pictures: Pictures, others: Mapping[str, Floats] = {}
) -> str:
    """The page.

    Args:
        outputs: of the file, float32 [N, outputs], for the pictures of `side`.
        task: as the file's outputs are read.
        others: name -> outputs of other files, which are shown beside it where outputs are pictures.
    """
    targets = pictures.targets(side)
    if isinstance(task.decoding, StyleDecoding):
        before, *after = versions({"this file": outputs, **others}, targets, task, task.decoding)
        worst = np.argsort(-after[0].losses, kind="stable")[:WORST]
        shown = [_redrawn(int(row), [before, *after], side, pictures) for row in worst]
        return _page(title, losses_figure(before, after), len(targets), side, shown)
    if isinstance(task.decoding, EmbeddingDecoding):
        plot = roc_figure(outputs, targets, task.decoding)
        pairs = worst_pairs(outputs, targets, task.decoding, WORST)
        return _page(title, plot, len(targets), side, [_pair(*pair, side, pictures) for pair in pairs])
    if isinstance(task, Detection):
        found = task.decode(outputs)
        order = np.argsort(-task.mistakes(outputs, targets), kind="stable")[:WORST]
        shown = [_boxed(int(row), found[row], targets[row], side, pictures) for row in order]
        curves = recall_figure(task.everything(outputs), targets, pictures.labels)
        return _page(title, curves, len(targets), side, shown)
    plot = _PLOTS[task.target](outputs, targets, task, pictures.labels)
    mistakes = task.mistakes(outputs, targets)
    order = np.argsort(-mistakes, kind="stable")[:WORST]
    wrong = [int(row) for row in order if mistakes[row] > 0]
    told = task.decode(outputs)
    shown = [_figure(row, side, told[row], targets[row], task.target, pictures) for row in wrong]
    return _page(title, plot, len(targets), side, shown)


def _page(title: str, plot: "Figure", count: int, side: Side, shown: Sequence[str]) -> str:
    plot.update_layout(title=f"All {count} pictures of the {side} side")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        + str(plot.to_html(full_html=False, include_plotlyjs=True, default_height="480px"))
        + f"<h2>The {len(shown)} worst, worst first</h2>{''.join(shown)}</body></html>\n"
    )


def _figure(row: int, side: Side, told: object, target: object, kind: TargetKind, pictures: Pictures) -> str:
    said, true = (target_text(kind, _target(value), pictures.labels) for value in (told, target))
    return (
        f"<figure>{_image(row, side, pictures)}<figcaption>{escape(pictures.names[side][row])}<br>"
        f"told {escape(said)}, is {escape(true)}</figcaption></figure>"
    )


def _pair(first: int, second: int, told: str, side: Side, pictures: Pictures) -> str:
    images = "".join(_image(row, side, pictures) for row in (first, second))
    names = ", ".join(escape(pictures.names[side][row]) for row in (first, second))
    return f'<figure class="pair">{images}<figcaption>{names}<br>{told}</figcaption></figure>'


def _boxed(row: int, told: Floats, true: Floats, side: Side, pictures: Pictures) -> str:
    said, real = (boxes_text(rows, pictures.labels) for rows in (told, true))
    image = _png(with_boxes(pictures.pixels(side)[row], told, true))
    caption = f"{escape(pictures.names[side][row])}<br>told (red) {escape(said)}<br>is (green) {escape(real)}"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _redrawn(row: int, shown: Sequence[Version], side: Side, pictures: Pictures) -> str:
    images = "".join(_png(version.pixels[row]) for version in shown)
    losses = ", ".join(f"{version.name} {version.losses[row]:.3f}" for version in shown)
    name = escape(pictures.names[side][row])
    return f'<figure class="redrawn">{images}<figcaption>{name}<br>loss: {losses}</figcaption></figure>'


def _image(row: int, side: Side, pictures: Pictures) -> str:
    return _png(pictures.pixels(side)[row])


def _png(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}" alt="">'


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
