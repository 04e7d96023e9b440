"""A study's summary as one HTML page with plots, which opens without a network."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from phonefit.pipeline.search.result import SearchTrial
from phonefit.pipeline.search.summary import StudySummary
from phonefit.pipeline.search.summary_table import numbers_text
from phonefit.pipeline.search.table import (
    counts_note,
    devices_note,
    figure_text,
    parameters_text,
    saving_note,
    untrusted_note,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.3em .8em;border-bottom:1px solid #ccc}"
)
_KINDS = ("on the front", "fits the budget", "over budget", "untrusted")
_COLOURS = dict(zip(_KINDS, ("#1a7f37", "#4c78a8", "#d1242f", "#999999"), strict=True))


def summary_page(summary: StudySummary) -> str:
    """The page: plots of the trials, of convergence and importances; tables of the front, the stages and reasons."""
    result = summary.result
    plots = [_trials_plot(summary), _convergence_plot(summary), *_importance_plot(summary)]
    drawn = [
        plot.to_html(full_html=False, include_plotlyjs=not place, default_height="420px")
        for place, plot in enumerate(plots)
    ]
    notes = [counts_note(result), devices_note(result), untrusted_note(result), saving_note(result)]
    notes.append(summary.importances_note)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(result.name)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>Search {escape(result.name)}</h1>"
        + "".join(f"<p>{escape(note)}</p>" for note in notes if note)
        + "<h2>Pareto front</h2>"
        + _html_table(["trial", "file", *result.objectives, "quality, test", "values"], _front_rows(summary))
        + "".join(drawn)
        + "<h2>Stages</h2>"
        + _html_table(
            ["stage", "computed", "seconds", "reused", "seconds not spent again"],
            (
                [
                    stage.stage,
                    str(stage.computed),
                    f"{stage.seconds_spent:.1f}",
                    str(stage.reused),
                    f"{stage.seconds_saved:.1f}",
                ]
                for stage in summary.stages
            ),
        )
        + "<h2>Trials ended early</h2>"
        + _html_table(
            ["by", "trials", "seconds avoided, about"],
            ([check.check, numbers_text(check.trials), f"{check.seconds_avoided:.1f}"] for check in summary.checks),
        )
        + "".join(f"<p>Predicted latency, {escape(line)}</p>" for line in summary.predictors)
        + "<h2>Trials that do not count, or only partly</h2>"
        + _html_table(
            ["what", "trials", "why, in the first of them"],
            ([reason.kind, numbers_text(reason.trials), reason.text] for reason in summary.reasons),
        )
        + "</body></html>\n"
    )


def _front_rows(summary: StudySummary) -> Iterator[list[str]]:
    result = summary.result
    for trial in result.trials:
        if trial.number in result.pareto and trial.values is not None:
            figures = [figure_text(name, trial.values[name]) for name in result.objectives]
            tested = "" if trial.test_quality is None else figure_text("quality", trial.test_quality)
            mark = "" if trial.trusted else " ?"
            yield [str(trial.number), f"{trial.file}{mark}", *figures, tested, parameters_text(trial)]


def _html_table(columns: Sequence[str], rows: "Iterator[list[str]]") -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if body else "<p>none</p>"


def _trials_plot(summary: StudySummary) -> "Figure":
    """The first objective against the second, or against the trial's number."""
    from plotly.graph_objects import Figure, Scatter

    result = summary.result
    first, second = result.objectives[0], (*result.objectives, None)[1]
    figure = Figure()
    for kind in _KINDS:
        trials = [trial for trial in result.trials if trial.values is not None and _kind(trial, summary) == kind]
        if not trials:
            continue
        figure.add_trace(
            Scatter(
                x=[trial.values[second] if second and trial.values else trial.number for trial in trials],
                y=[trial.values[first] for trial in trials if trial.values],
                text=[escape(f"trial {trial.number}: {parameters_text(trial)}") for trial in trials],
                mode="markers",
                name=kind,
                marker={"size": 10, "color": _COLOURS[kind]},
            )
        )
    figure.update_layout(title="Trials", xaxis_title=second or "trial", yaxis_title=first)
    return figure


def _kind(trial: SearchTrial, summary: StudySummary) -> str:
    if trial.number in summary.result.pareto:
        return "on the front"
    if not trial.learned:
        return "untrusted"
    return "fits the budget" if trial.feasible else "over budget"


def _convergence_plot(summary: StudySummary) -> "Figure":
    from plotly.graph_objects import Figure, Scatter

    steps = summary.convergence
    figure = Figure(
        Scatter(x=[step.trial for step in steps], y=[step.value for step in steps], mode="lines", line_shape="hv")
    )
    several = summary.converged == "hypervolume"
    title = "Hypervolume of the front, share of the final one" if several else f"Best {summary.converged} so far"
    figure.update_layout(title=title, xaxis_title="trial", yaxis_title=summary.converged)
    return figure


def _importance_plot(summary: StudySummary) -> "Iterator[Figure]":
    from plotly.graph_objects import Bar, Figure

    if summary.importances:
        figure = Figure(
            [
                Bar(name=name, y=[escape(path) for path in shares], x=list(shares.values()), orientation="h")
                for name, shares in summary.importances.items()
            ]
        )
        figure.update_layout(title="Importance of each parameter", xaxis_title="share")
        yield figure
