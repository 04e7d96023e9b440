"""The history as a picture: one self-contained HTML page that works without a network."""

from collections.abc import Sequence
from pathlib import Path

from phonefit.models.record import write_atomically
from phonefit.pipeline.size.history import HistoryLine
from phonefit.pipeline.store import explain_disk_errors


def write_trend(path: Path, lines: Sequence[HistoryLine], measure: str) -> None:
    """Draw one line an artifact over time; blessings are marked, with their reason.

    Raises:
        StoreError: the page cannot be written.
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure(layout={"title": f"{measure} over time", "yaxis": {"title": measure, "rangemode": "tozero"}})
    for name in dict.fromkeys(line.name for line in lines):
        own = [(line, value) for line in lines if line.name == name and (value := line.figure(measure)) is not None]
        figure.add_trace(
            Scatter(
                x=[line.time for line, _ in own],
                y=[value for _, value in own],
                name=name,
                mode="lines+markers",
                line={"shape": "hv"},
                marker={"symbol": ["diamond" if line.event == "bless" else "circle" for line, _ in own], "size": 8},
                text=[f"{line.commit[:12]} {line.reason}".strip() or line.event for line, _ in own],
            )
        )
    page: str = figure.to_html(include_plotlyjs=True, div_id="trend")
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
