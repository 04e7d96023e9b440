"""The explanation as one page: bars of the costs, a heat map of the sensitivities. Opens without a network."""

import html
import math
from collections.abc import Callable
from typing import Any

from phonefit.pipeline.explain.captions import captions
from phonefit.pipeline.explain.result import (
    SHARES_PRUNED,
    Effect,
    Explanation,
    LayerExplanation,
    multiply_adds,
    nanoseconds,
)

ROW_PIXELS, FRAME_PIXELS = 18, 260
LEAST_ERROR = 1e-6  # shown as one colour with all below: 60 dB
DEVICE_COLOUR, FLOAT_COLOUR, INT8_COLOUR, WORK_COLOUR = "#b5651d", "#7a9cc6", "#1f4e8c", "#4c8c6b"


def page(found: Explanation) -> str:
    """One HTML file that holds everything, plotly's library too (about 5 MB): layers from top to bottom as computed."""
    from plotly.graph_objects import Figure
    from plotly.subplots import make_subplots

    timed = found.timing is not None
    titles = [
        "bytes of the weights",
        "multiply-adds",
        *(["time on the device"] if timed else []),
        "error of the outputs",
    ]
    widths = [0.22, 0.2, *([0.2] if timed else []), 0.28]
    figure: Figure = make_subplots(
        rows=1,
        cols=len(titles),
        shared_yaxes=True,
        subplot_titles=titles,
        column_widths=widths,
        horizontal_spacing=0.02,
    )
    names = [layer.name for layer in found.layers]
    _add_bars(figure, found, timed)
    heat, hover = heat_map(found)
    figure.add_heatmap(
        x=list(TECHNIQUES),
        y=names,
        z=[[None if value is None else math.log10(max(value, LEAST_ERROR)) for value in row] for row in heat],
        text=hover,
        hovertemplate="%{y}<br>%{text}<extra></extra>",
        zmin=math.log10(LEAST_ERROR),
        zmax=0,
        colorscale="YlOrRd",
        colorbar={"title": "error", "tickvals": [-6, -4, -2, 0], "ticktext": ["≤ 1e-6", "0.01 %", "1 %", "≥ 100 %"]},
        xgap=2,
        ygap=1,
        row=1,
        col=len(titles),
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_yaxes(automargin=True, col=1)
    figure.update_layout(
        barmode="overlay",
        template="plotly_white",
        height=FRAME_PIXELS + ROW_PIXELS * len(names),
        title={"text": html.escape(f"{found.network}: what each layer costs, and what each technique would do to it")},
        legend={"orientation": "h", "y": -0.02},
        margin={"t": 110},
    )
    text: str = figure.to_html(full_html=True, include_plotlyjs=True, include_mathjax=False)
    caption = "".join(f"<p>{html.escape(line)}</p>" for line in captions(found))
    style = "font-family:sans-serif;max-width:60em;margin:1em 2em;color:#444"
    return text.replace("</body>", f'<div style="{style}">{caption}</div></body>')


TECHNIQUES: dict[str, Callable[[LayerExplanation], tuple[Effect | None, str]]] = {
    "int8": lambda layer: (layer.int8, layer.int8_left),
    **{
        f"prune {share:.0%}": lambda layer, place=place: (  # type: ignore[misc]
            layer.prune[place] if layer.prune else None,
            layer.prune_left,
        )
        for place, share in enumerate(SHARES_PRUNED)
    },
    "decompose": lambda layer: (layer.decompose, layer.decompose_left),
}
"""Columns of the heat map: what is known of a layer, and why there is nothing."""


def heat_map(found: Explanation) -> tuple[list[list[float | None]], list[list[str]]]:
    """Errors, and words for each, [layers][techniques]."""
    errors: list[list[float | None]] = []
    words: list[list[str]] = []
    for layer in found.layers:
        row = [look(layer) for look in TECHNIQUES.values()]
        errors.append([None if effect is None else effect.error for effect, _ in row])
        words.append([_words(layer, effect, left) for effect, left in row])
    return errors, words


def _words(layer: LayerExplanation, effect: Effect | None, left: str) -> str:
    if effect is None:
        return html.escape(f"left alone: {left}")
    text = f"error {effect.error:.2e}" + ("" if effect.loss is None else f", loss {effect.loss:.3g}")
    if effect is layer.decompose and layer.decompose is not None:
        one = layer.decompose
        kept = one.multiply_adds / layer.multiply_adds
        text += f"<br>{one.method} rank {'x'.join(map(str, one.ranks))}, {kept:.0%} of the multiply-adds"
    return text


def _add_bars(figure: Any, found: Explanation, timed: bool) -> None:
    names = [layer.name for layer in found.layers]
    kinds = [html.escape(f"{layer.kind}, output {'x'.join(map(str, layer.output))}") for layer in found.layers]

    def bars(column: int, values: list[float | None], name: str, colour: str, unit: str) -> None:
        figure.add_bar(
            x=values,
            y=names,
            orientation="h",
            name=name,
            marker={"color": colour},
            customdata=kinds,
            hovertemplate=f"%{{y}}<br>%{{customdata}}<br>%{{x:,.0f}} {unit}<extra>{name}</extra>",
            row=1,
            col=column,
        )

    bars(1, [layer.float_bytes for layer in found.layers], "float32", FLOAT_COLOUR, "bytes")
    bars(1, [layer.int8_bytes for layer in found.layers], "int8", INT8_COLOUR, "bytes")
    bars(2, [multiply_adds(layer) for layer in found.layers], "multiply-adds", WORK_COLOUR, "")
    if timed:
        bars(3, [nanoseconds(layer) for layer in found.layers], "time", DEVICE_COLOUR, "ns")
