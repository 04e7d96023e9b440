"""A study's summary as tables for a terminal of 80 columns."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.search.result import DIRECTIONS
from phonefit.pipeline.search.summary import Reason, Step, StudySummary
from phonefit.pipeline.search.table import counts_note, figure_text, front_table, saving_note

_BAR = 30  # characters of the longest bar
_ROWS = 12  # steps that are shown
_NUMBERS = 8  # trials that are named for one reason


def summary_table(summary: StudySummary) -> RenderableType:
    """Front, importances, convergence, stages, and why trials did not count."""
    parts: list[RenderableType] = [front_table(summary.result), Text(counts_note(summary.result), "dim"), Text("")]
    parts += [
        *_importances(summary),
        *_convergence(summary),
        *_stages(summary),
        *_checks(summary),
        *_reasons(summary.reasons),
    ]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    """The first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    return table


def _importances(summary: StudySummary) -> Iterator[RenderableType]:
    if not summary.importances:
        yield Text(f"{summary.importances_note}\n", "dim")
        return
    table = _table("Importance of each parameter", "parameter", *(_words(name) for name in summary.importances))
    columns = list(summary.importances.values())
    paths = sorted(columns[-1], key=lambda path: -max(column.get(path, 0.0) for column in columns))
    for path in paths:
        table.add_row(path, *(f"{column[path]:.0%}" if path in column else "" for column in columns))
    yield table
    yield Text(f"{summary.importances_note}\n", "dim")


def _convergence(summary: StudySummary) -> Iterator[RenderableType]:
    steps = summary.convergence
    if not steps:
        yield Text("no trial fits the budget yet, so there is no convergence to show\n", "dim")
        return
    several = summary.converged == "hypervolume"
    title = "Hypervolume of the front, share of today's" if several else f"Best {_words(summary.converged)} so far"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("after trial", justify="right")
    table.add_column("value", justify="right")
    table.add_column("")
    values = [step.value for step in steps]
    low, high = (0.0, 1.0) if several else (min(values), max(values))
    for step in _turns(steps):
        share = (step.value - low) / (high - low) if high > low else 1.0
        table.add_row(str(step.trial), _value(summary.converged, step.value), "█" * max(1, round(share * _BAR)))
    yield table


def _turns(steps: Sequence[Step]) -> list[Step]:
    """The first step, those that changed something, and the last; of many, as many as fit, evenly."""
    changed = [step for before, step in pairwise(steps) if step.value != before.value]
    turns = list(dict.fromkeys([steps[0], *changed, steps[-1]]))
    if len(turns) <= _ROWS:
        return turns
    return [turns[round(place * (len(turns) - 1) / (_ROWS - 1))] for place in range(_ROWS)]


def _value(name: str, value: float) -> str:
    objective: Objective | None = next((known for known in DIRECTIONS if known == name), None)
    return f"{value:.1%}" if objective is None else figure_text(objective, value)


def _stages(summary: StudySummary) -> Iterator[RenderableType]:
    if not summary.stages:
        return
    table = _table("Stages", "stage", "computed", "took", "reused", "not spent again")
    for stage in summary.stages:
        spent, saved = f"{stage.seconds_spent:.1f} s", f"{stage.seconds_saved:.1f} s"
        table.add_row(stage.stage, str(stage.computed), spent, str(stage.reused), saved)
    computed, reused = (sum(getattr(stage, name) for stage in summary.stages) for name in ("computed", "reused"))
    spent, saved = (sum(getattr(stage, f"seconds_{name}") for stage in summary.stages) for name in ("spent", "saved"))
    table.add_section()
    table.add_row("all", str(computed), f"{spent:.1f} s", str(reused), f"{saved:.1f} s")
    yield table


def _checks(summary: StudySummary) -> Iterator[RenderableType]:
    if summary.checks:
        table = _table("Trials ended early", "by", "trials", "avoided, about")
        for check in summary.checks:
            table.add_row(check.check, str(len(check.trials)), f"{check.seconds_avoided:.1f} s")
        yield table
    notes = [saving_note(summary.result), *(f"predicted latency, {line}" for line in summary.predictors)]
    yield from (Text(note, "dim") for note in notes if note)


def _reasons(reasons: Sequence[Reason]) -> Iterator[RenderableType]:
    if not reasons:
        return
    table = Table(
        title="Trials that do not count, or only partly",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("what")
    table.add_column("trials", justify="right")
    table.add_column("why, in the first of them", overflow="fold")
    for reason in reasons:
        table.add_row(reason.kind, str(len(reason.trials)), f"{reason.text}\n(trial {numbers_text(reason.trials)})")
    yield table


def numbers_text(trials: Sequence[int]) -> str:
    """Numbers of trials, the first few of many."""
    return ", ".join(map(str, trials[:_NUMBERS])) + (", …" if len(trials) > _NUMBERS else "")


def _words(name: str) -> str:
    return name.replace("_", " ")
