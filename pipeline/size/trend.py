"""The history as a picture: an HTML page that works without a network, or a PNG for a message or a wiki."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from phonefit.models.errors import UnknownNameError
from phonefit.models.record import write_atomically
from phonefit.pipeline.size.history import HistoryLine
from phonefit.pipeline.store import explain_disk_errors

Series = Mapping[str, Sequence[tuple[HistoryLine, float]]]


def write_trend(path: Path, lines: Sequence[HistoryLine], measure: str) -> None:
    """Draw one line an artifact over time, as the suffix says; blessings are marked, on the page with the reason.

    Raises:
        UnknownNameError: another suffix than those of DRAWINGS.
        StoreError: the file cannot be written.
    """
    if path.suffix not in DRAWINGS:
        raise UnknownNameError("kind of plot", path.suffix, DRAWINGS)
    series = {
        name: [(line, value) for line in lines if line.name == name and (value := line.figure(measure)) is not None]
        for name in dict.fromkeys(line.name for line in lines)
    }
    content = DRAWINGS[path.suffix](series, measure)
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _page(series: Series, measure: str) -> bytes:
    from plotly.graph_objects import Figure, Scatter

    figure = Figure(layout={"title": f"{measure} over time", "yaxis": {"title": measure, "rangemode": "tozero"}})
    for name, own in series.items():
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
    return page.encode()


def _picture(series: Series, measure: str) -> bytes:
    from matplotlib.dates import date2num
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for name, own in series.items():
        times = [date2num(line.time) for line, _ in own]  # type: ignore[no-untyped-call]
        (drawn,) = axes.plot(times, [value for _, value in own], drawstyle="steps-post", marker=".", label=name)
        blessed = [(time, value) for time, (line, value) in zip(times, own, strict=True) if line.event == "bless"]
        axes.plot(*zip(*blessed, strict=True) if blessed else ([], []), "D", color=drawn.get_color())
    axes.set(title=f"{measure} over time", ylabel=measure)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="plain")
    axes.xaxis_date()
    figure.autofmt_xdate()
    if series:
        axes.legend(fontsize="small")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


DRAWINGS: dict[str, Callable[[Series, str], bytes]] = {".html": _page, ".png": _picture}
