"""How a planned compression was found, as tables for a terminal. Nothing here computes anything."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phonefit.pipeline.result_plan import PlanResult, PlanTry

_UNITS: Mapping[str, tuple[str, float, int]] = {
    "file_size": ("size\nkB", 1e3, 0),
    "peak_memory": ("peak\nMB", 1e6, 2),
    "ram": ("RAM\nMB", 1e6, 2),
    "latency_p90_ms": ("p90\nms", 1, 2),
    "energy_uj": ("energy\nuJ", 1, 0),
    "instructions": ("instr.\nmillion", 1e6, 1),
    "quality_drop": ("drop\npoints", 0.01, 1),
}
"""Limit -> title of its column, what one of its units is, digits."""


def plan_table(plan: PlanResult) -> RenderableType:
    """The best candidates with what was expected of them, and each plan that was built, expected against measured."""
    titles = [_UNITS[name][0] for name in plan.limits]
    expected = _table("candidate", "runtime", "loss", *titles, "")
    expected.title = f"plan: the best of {plan.considered} candidates, after all corrections"
    for row in plan.candidates:
        figures = [_shown(name, row.figures.get(name)) for name in plan.limits]
        fits = Text("fits", "green") if row.fits else Text("over", "red")
        expected.add_row(row.name, row.runtime, f"{row.loss:.3g}", *figures, fits)
    wanted = [_shown(name, limit) for name, limit in plan.limits.items()]
    expected.add_row(Text("limit", "bold"), "", "", *wanted, "", end_section=True)
    built = _table("plan that was built", "", *titles, "")
    for number, one in enumerate(plan.tries, 1):
        mark = " ★" if number - 1 == plan.chosen else ""
        lines = [(name, values) for name, values in _lines(one) if values]
        for index, (name, values) in enumerate(lines):
            verdict = Text("met", "green") if one.met else Text("missed", "red")
            built.add_row(
                f"{number}. {one.name}{mark}" if index == 0 else "",
                name,
                *(_ratio(values, limit) if name == "measured/scaled" else _shown(limit, values.get(limit))
                  for limit in plan.limits),
                verdict if name == "measured" else "",
            )  # fmt: skip
    notes = [f"{number}. missed: {text}" for number, one in enumerate(plan.tries, 1) for text in one.missed]
    if not plan.met:
        notes.append("no plan met the budget; ★ came nearest")
    notes.append(f"{plan.asked} untrained files were made to learn their costs")
    if plan.unscored:
        notes.append(f"{plan.unscored} networks of the grid were not scored: at best they would not have been better")
    notes += [f"left out: {text}" for text in plan.left_out]
    return Group(expected, built, *(Text(note, "dim") for note in notes))


def _lines(one: PlanTry) -> list[tuple[str, Mapping[str, float]]]:
    return [
        ("scaled", one.estimated),
        ("asked" if one.asked else "expected", one.expected),
        ("measured", one.measured),
        ("measured/scaled", one.corrections if one.estimated else {}),
    ]


def _table(*columns: str) -> Table:
    table = Table(title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index > 1 else "left", overflow="fold")
    return table


def _shown(limit: str, value: float | None) -> str:
    _, unit, digits = _UNITS[limit]
    return "" if value is None else f"{value / unit:,.{digits}f}"


def _ratio(figures: Mapping[str, float], limit: str) -> str:
    return f"{figures[limit]:.3f}" if limit in figures else ""
