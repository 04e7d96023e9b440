"""Results of the size gate as tables for a terminal. Nothing here computes anything."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from phonefit.pipeline.size.gate import Finding, GateReport, Result
from phonefit.pipeline.size.history import Creep, HistoryLine
from phonefit.pipeline.size.measured import Measured
from phonefit.pipeline.size.report import tool_sentences
from phonefit.pipeline.size.sources import Broken
from phonefit.pipeline.size.why import Explanation
from phonefit.pipeline.tables import table

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "broken": "red"}


def measured_table(items: Sequence[Measured | Broken]) -> RenderableType:
    """Sizes by section."""
    result = table("artifact", "bytes", "sections", title="sizes", numbers=False)
    result.columns[1].justify = "right"
    for item in items:
        if isinstance(item, Broken):
            result.add_row(item.name, Text("broken", "red"), Text(item.error, "red"))
            continue
        sections = ", ".join(f"{name} {size:,}" for name, size in item.anatomy.sections().items())
        more = "".join(f"\n{name} {value:,.4g}" for name, value in item.measures.items())
        result.add_row(item.name, f"{item.anatomy.bytes:,}", sections + more)
    return result


def gate_table(report: GateReport, bless: str, whys: Sequence[str]) -> RenderableType:
    """What the gate found: changed tools first, then worst first."""
    result = table("artifact", "blessed", "now", "change", "")
    for item in report.results:
        size = item.finding("bytes")
        result.add_row(
            item.name,
            "" if size is None or size.old is None else f"{size.old:,.0f}",
            "" if size is None else f"{size.new:,.0f}",
            _change(size),
            Text("not measured" if item.status == "broken" else item.status, _STYLES[item.status]),
        )
    if report.old_bytes:
        total = Finding(measure="bytes", unit="bytes", old=report.old_bytes, new=report.new_bytes, level="ok")
        result.add_row(Text("total", "bold"), f"{report.old_bytes:,}", f"{report.new_bytes:,}", _change(total), "")
    tools = [Text(text[0].upper() + text[1:], "bold yellow") for text in tool_sentences(report)]
    details = [Text(text, _STYLES[item.status]) for item in report.results for text in _details(item)]
    notes = [Text(note, "dim") for note in report.notes]
    commands = [Text(f"why:    {command}") for command in whys]
    accept = [Text(f"accept: {bless}")] if bless else []
    return Group(*tools, result, *details, *notes, *commands, *accept)


def explanation_table(found: Explanation) -> RenderableType:
    """Why a file changed, largest effect first."""
    delta = found.new_bytes - found.old_bytes
    result = table("cause", "bytes", "what", numbers=False)
    result.columns[1].justify = "right"
    for change in found.changes:
        style = "dim" if change.harmless else ""
        result.add_row(Text(change.cause, style), f"{change.bytes:+,}", Text(change.text, style))
    return Group(Text(f"{found.old_bytes:,} → {found.new_bytes:,} bytes ({delta:+,})", "bold"), result)


def history_table(lines: Sequence[HistoryLine], measure: str, crept: Sequence[Creep]) -> RenderableType:
    """The last lines of the history, and what grew over the period."""
    result = table("time", "artifact", measure, "event", "reason", numbers=False)
    result.columns[2].justify = "right"
    for line in lines:
        figure = line.figure(measure)
        value = "" if figure is None else f"{figure:,g}" if figure < 1 else f"{figure:,.0f}"
        result.add_row(f"{line.time:%Y-%m-%d %H:%M}", line.name, value, line.event, line.reason)
    grown = [Text(item.text, "red" if item.exceeded else "") for item in crept]
    return Group(result, *grown)


def _details(item: Result) -> list[str]:
    effect = item.tool_effect
    texts = [item.error] if item.error else []
    texts += [f"{finding.measure} {reason}" for finding in item.findings for reason in finding.reasons]
    texts += item.remarks
    if effect is not None:
        size = item.finding("bytes")
        if effect.bytes is not None and size is not None and size.old is not None:
            texts.append(
                f"the tools {effect.bytes - size.old:+,.0f} bytes, the model {size.new - effect.bytes:+,.0f} bytes"
            )
        texts += [effect.note] if effect.note else []
    return [f"{item.name}: {text}" for text in texts]


def _change(finding: Finding | None) -> str:
    if finding is None or finding.old is None:
        return "" if finding is None else "new"
    share = "" if finding.change is None else f" ({finding.change:+.2%})"
    return f"{finding.new - finding.old:+,.0f}{share}"
