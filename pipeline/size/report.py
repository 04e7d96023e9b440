"""The gate's report as Markdown, for pull requests and job summaries, and as JUnit XML. Pure functions."""

import shlex
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from phonefit.pipeline.size.gate import Finding, GateReport, Result

_WORDS = {"ok": "ok", "warn": "⚠️ warning", "fail": "❌ failed", "broken": "❌ not measured"}
_PLACEHOLDER = "why this growth is right"


def bless_command(report: GateReport, baseline: str, runs: str) -> str:
    """The exact command that accepts what failed or warned; "" when a bless would change nothing."""
    missed = [item for item in report.results if item.status in ("warn", "fail") and not item.same_file]
    subjects = list(dict.fromkeys(result.subject for result in missed))
    if not subjects:
        return ""
    return shlex.join(["phonefit", "size", "bless", *subjects, *_where(baseline, runs)]) + f' --reason "{_PLACEHOLDER}"'


def why_command(result: Result, baseline: str, runs: str) -> str:
    """The command that explains one artifact's growth."""
    return shlex.join(["phonefit", "size", "why", result.name, *_where(baseline, runs)])


def explainable(result: Result) -> bool:
    """Whether `why` has something to tell: it warns or fails, and both its blessed and its present parts are known."""
    both = bool(result.old_sections and result.sections)
    return result.status in ("warn", "fail") and both and not result.same_file


def markdown(report: GateReport, baseline: str, runs: str) -> str:
    """The report for a pull request: changed tools first, then the artifacts, worst first, then the details."""
    lines = [f"## Sizes: {_headline(report)}", ""]
    lines += _tool_lines(report)
    with_tools = any(result.tool_effect and result.tool_effect.bytes is not None for result in report.results)
    columns = ["artifact", "blessed", "now", "change", *(["by the tools", "by the model"] if with_tools else []), ""]
    lines += [_row(columns), _row(["---", *["---:"] * (len(columns) - 2), "---"])]
    for result in report.results:
        size = result.finding("bytes")
        old = size.old if size is not None else sum(result.old_sections.values()) or None
        cells = [f"`{_cell(result.name)}`", _bytes(old), _bytes(size.new if size else None), _change(size)]
        lines.append(_row([*cells, *(_effect_cells(result) if with_tools else []), _WORDS[result.status]]))
    if report.old_bytes:
        total = Finding(measure="bytes", unit="bytes", old=report.old_bytes, new=report.new_bytes, level="ok")
        cells = ["**total**", _bytes(report.old_bytes), _bytes(report.new_bytes), _change(total)]
        lines.append(_row([*cells, *(["", ""] if with_tools else []), ""]))
    for result in report.results:
        lines += _detail_lines(result, baseline, runs)
    lines += [f"\n{note}" for note in report.notes]
    if command := bless_command(report, baseline, runs):
        over = [item for item in report.results if any("budget" in text for text in _reasons(item))]
        names = ", ".join(f"`{item.name}`" for item in over)
        lines += ["", "To accept what changed:", "", "```sh", command, "```"]
        lines += ["", f"A bless does not lift a budget: {names} must shrink, or its budget be raised."] if over else []
    return "\n".join(lines) + "\n"


def junit(report: GateReport, baseline: str, runs: str, strict: bool) -> str:
    """The report as JUnit XML: one test case an artifact; a warning is a failure only when strict."""
    results = report.results
    failing = [item for item in results if item.status == "fail" or (strict and item.status == "warn")]
    broken = [item for item in results if item.status == "broken"]
    counts = {"tests": str(len(results)), "failures": str(len(failing)), "errors": str(len(broken))}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "phonefit size", **counts})
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", {"classname": result.subject, "name": result.name})
        text = "\n".join([*_reasons(result), *result.remarks])
        if result.status == "broken":
            ElementTree.SubElement(case, "error", {"message": result.error})
        elif result in failing:
            command = (
                f"{text}\nwhy: {why_command(result, baseline, runs)}\naccept: {bless_command(report, baseline, runs)}"
            )
            ElementTree.SubElement(case, "failure", {"message": text.splitlines()[0]}).text = command
        size = result.finding("bytes")
        if size is not None:
            ElementTree.SubElement(
                case, "system-out"
            ).text = f"{_bytes(size.new)} bytes, blessed {_bytes(size.old)}\n{text}"
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def tool_sentences(report: GateReport) -> list[str]:
    """What changed of the tools, one line a package, and what that did to all the sizes together."""
    changed = [f"{name} {old or 'unknown'} → {new or 'not used'}" for name, (old, new) in report.tools.items()]
    if not changed:
        return []
    effects = [
        (item.tool_effect.bytes - size.old, size.new - item.tool_effect.bytes)
        for item in report.results
        if item.tool_effect and item.tool_effect.bytes is not None
        and (size := item.finding("bytes")) is not None and size.old is not None
    ]  # fmt: skip
    lines = ["the tools changed since the blessing: " + ", ".join(changed)]
    if effects:
        tools, model = (sum(part) for part in zip(*effects, strict=True))
        lines.append(f"of the growth of those files the tools did {tools:+,.0f} bytes, the model {model:+,.0f} bytes")
    return lines


def _headline(report: GateReport) -> str:
    counts = [(status, sum(item.status == status for item in report.results)) for status in _WORDS]
    words = {"ok": "ok", "warn": "with warnings", "fail": "failed", "broken": "not measured"}
    return ", ".join(f"{count} {words[status]}" for status, count in reversed(counts) if count) or "nothing to check"


def _tool_lines(report: GateReport) -> Iterator[str]:
    sentences = tool_sentences(report)
    if sentences:
        yield "> **" + sentences[0][0].upper() + sentences[0][1:] + ".**"
        yield from (f"> {text[0].upper() + text[1:]}." for text in sentences[1:])
        yield ""


def _detail_lines(result: Result, baseline: str, runs: str) -> Iterator[str]:
    effect = result.tool_effect
    remarks = [*result.remarks, *([f"tools: {effect.note}"] if effect and effect.note else [])]
    if result.status == "ok" and not remarks:
        return
    yield ""
    yield f"**`{result.name}`** {_WORDS[result.status]}"
    yield ""
    if result.error:
        yield f"- {result.error}"
        return
    yield from (f"- {text}" for text in (*_reasons(result), *remarks))
    if not result.old_sections or not result.sections:  # new or gone
        return
    pairs = {name: (result.old_sections.get(name, 0), result.sections.get(name, 0))
             for name in {**result.old_sections, **result.sections}}  # fmt: skip
    for name, (old, new) in sorted(pairs.items(), key=lambda item: item[1][0] - item[1][1]):
        if old != new:
            yield f"- section {name}: {old:,} → {new:,} bytes ({new - old:+,})"
    if explainable(result):
        yield f"- what changed: `{why_command(result, baseline, runs)}`"


def _reasons(result: Result) -> list[str]:
    return [
        f"{finding.measure} {_figure(finding.old)} → {_figure(finding.new)}{_share(finding)}: {reason}"
        for finding in result.findings
        for reason in finding.reasons
    ]


def _share(finding: Finding) -> str:
    return "" if finding.change is None else f" ({finding.change:+.2%})"


def _effect_cells(result: Result) -> Sequence[str]:
    size, effect = result.finding("bytes"), result.tool_effect
    if size is None or size.old is None or effect is None or effect.bytes is None:
        return "", ""
    return f"{effect.bytes - size.old:+,.0f}", f"{size.new - effect.bytes:+,.0f}"


def _where(baseline: str, runs: str) -> list[str]:
    """Options that differ from their defaults."""
    return [
        *(["--baseline", baseline] if baseline != "sizes.toml" else []),
        *(["--runs", runs] if runs != "runs" else []),
    ]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _bytes(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:,.0f}"


def _figure(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def _change(finding: Finding | None) -> str:
    if finding is None or finding.old is None:
        return "new" if finding else ""
    return f"{finding.new - finding.old:+,.0f}{_share(finding)}"
