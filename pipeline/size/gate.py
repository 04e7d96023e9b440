"""The gate: blessed figures and present ones in, verdicts out. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Literal

from phonefit.models.record import Frozen, Record
from phonefit.pipeline.size.baseline import Baseline, Entry
from phonefit.pipeline.size.limits import SECTION, Rule, exceeds, limited_measures, measure_named, rule_for
from phonefit.pipeline.size.measured import Measured
from phonefit.pipeline.size.sources import Broken

Level = Literal["ok", "warn", "fail"]
Status = Literal["ok", "warn", "fail", "broken"]
EXIT_CODES: dict[Status, int] = {"ok": 0, "warn": 0, "fail": 1, "broken": 3}
STRICT_WARN = 4
_ORDER: dict[Status, int] = {"broken": 0, "fail": 1, "warn": 2, "ok": 3}


class Finding(Frozen):
    """One figure of one artifact, held against its limits.

    Attributes:
        old: the blessed figure; None where there is none.
        low: lower end of the 95 % interval of `new`, for figures that do not repeat exactly.
        reasons: the limits that are missed, in words.
    """

    measure: str
    unit: str
    old: float | None
    new: float
    level: Level
    reasons: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def change(self) -> float | None:
        """new / old - 1; None where it has no meaning."""
        return self.new / self.old - 1 if self.old else None


class ToolEffect(Frozen):
    """What changed tools did to the size: the blessed checkpoint converted by the present tools.

    Attributes:
        bytes: of that file; None where it cannot be told apart, and `note` says why.
    """

    bytes: int | None
    note: str = ""


class Result(Frozen):
    """One artifact.

    Attributes:
        status: the worst of its findings; "broken" when it could not be measured.
        remarks: what is to be known besides: no baseline yet, gone, other precision.
        old_sections: blessed bytes by section.
        tools: package -> its blessed and its present version, of those that differ; "" for unknown.
        error: why it could not be measured.
    """

    name: str
    subject: str
    status: Status
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    old_sections: Mapping[str, int] = {}
    sections: Mapping[str, int] = {}
    tools: Mapping[str, tuple[str, str]] = {}
    tool_effect: ToolEffect | None = None
    same_file: bool = False
    error: str = ""

    def finding(self, measure: str) -> Finding | None:
        """The finding of one measure."""
        return next((finding for finding in self.findings if finding.measure == measure), None)


class GateReport(Record):
    """Content of the JSON report.

    Attributes:
        results: worst first.
        old_bytes: sum of the blessed sizes of the artifacts that have one.
        new_bytes: sum of the present sizes of the same ones.
        notes: what could not be gated, and why.
    """

    schema_number: int = 1
    results: tuple[Result, ...]
    old_bytes: int
    new_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        """The worst of all."""
        return min((result.status for result in self.results), key=_ORDER.__getitem__, default="ok")

    def exit_code(self, strict: bool) -> int:
        """0 in order, 1 failed, 3 not all could be measured (also when something failed), 4 a warning and strict."""
        return STRICT_WARN if strict and self.status == "warn" else EXIT_CODES[self.status]

    @property
    def tools(self) -> dict[str, tuple[str, str]]:
        """Package -> versions, of all tools that changed since the blessing."""
        return {name: pair for result in self.results for name, pair in sorted(result.tools.items())}


def judge(
    measured: Sequence[Measured | Broken], baseline: Baseline, whole: bool, notes: Sequence[str] = ()
) -> GateReport:
    """Hold what was measured against the baseline.

    Args:
        whole: everything that the baseline names was measured, so what is missing is gone.
    """
    results = [_broken(item, baseline) if isinstance(item, Broken) else _judged(item, baseline) for item in measured]
    names = {result.name for result in results}
    failed = {item.subject for item in measured if isinstance(item, Broken)}
    checked = {item.subject for item in measured}
    for name, entry in baseline.artifacts.items():
        if name not in names and entry.subject not in failed and (whole or entry.subject in checked):
            text = f"gone: {entry.subject} no longer gives it; bless takes it out of the baseline"
            gone = Result(name=name, subject=entry.subject, status="warn", remarks=(text,), old_sections=entry.sections)
            results.append(gone)
    compared = [finding for result in results if (finding := result.finding("bytes")) and finding.old is not None]
    return GateReport(
        results=tuple(sorted(results, key=_rank)),
        old_bytes=round(sum(finding.old or 0 for finding in compared)),
        new_bytes=round(sum(finding.new for finding in compared)),
        notes=tuple(notes),
    )


def with_finding(result: Result, finding: Finding) -> Result:
    """The result with one more finding; its status is the worst of all."""
    findings = (*result.findings, finding)
    return result.model_copy(update={"findings": findings, "status": _status(findings, result.status)})


def resorted(report: GateReport, results: Sequence[Result], notes: Sequence[str] = ()) -> GateReport:
    """The report with other results, worst first, and more notes."""
    ordered = tuple(sorted(results, key=_rank))
    return report.model_copy(update={"results": ordered, "notes": (*report.notes, *notes)})


def changed_tools(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Package -> blessed and present version, of those that differ; none where either side's tools are not known.

    Builds of one release, such as 2.13.0+cpu and 2.13.0, count as the same (PEP 440, local version labels).
    """
    if not old or not new:
        return {}
    pairs = {name: (old.get(name, ""), new.get(name, "")) for name in sorted({*old, *new})}
    return {name: pair for name, pair in pairs.items() if pair[0].partition("+")[0] != pair[1].partition("+")[0]}


def measures_wanted(baseline: Baseline, name: str) -> tuple[str, ...]:
    """The measures beside bytes that the blessed figures of an artifact or a limit on it ask for."""
    entry = baseline.artifacts.get(name)
    return tuple(dict.fromkeys([*(entry.measures if entry else ()), *limited_measures(baseline.limits, name)]))


def _broken(item: Broken, baseline: Baseline) -> Result:
    entry = baseline.artifacts.get(item.name)
    sections = {} if entry is None else entry.sections
    return Result(name=item.name, subject=item.subject, status="broken", error=item.error, old_sections=sections)


def _judged(item: Measured, baseline: Baseline) -> Result:
    entry = baseline.artifacts.get(item.name)
    names = ["bytes", *item.measures, *limited_measures(baseline.limits, item.name)]
    findings = []
    for name in dict.fromkeys(names):
        new = item.figure(name)
        if new is not None:
            old = None if entry is None else blessed_figure(entry, name)
            findings.append(finding_of(name, old, new, rule_for(baseline.limits, item.name, name)))
    remarks: tuple[str, ...] = ()
    if entry is None:
        remarks = ("no baseline yet: only budgets hold; bless it",)
        status: Status = _status(findings, "warn")
    else:
        if entry.precision != item.precision and entry.precision and item.precision:
            remarks = (f"precision was {entry.precision}, is {item.precision}",)
        status = _status(findings, "ok")
    return Result(
        name=item.name,
        subject=item.subject,
        status=status,
        findings=tuple(findings),
        remarks=remarks,
        old_sections={} if entry is None else entry.sections,
        sections=item.anatomy.sections(),
        tools={} if entry is None else changed_tools(entry.tools, item.tools),
        same_file=entry is not None and entry.sha256 == item.anatomy.sha256,
    )


def blessed_figure(entry: Entry, measure: str) -> float | None:
    """A blessed figure by the name of its measure; None where there is none."""
    if measure == "bytes":
        return float(entry.bytes)
    if measure.startswith(SECTION):
        return float(entry.sections.get(measure.removeprefix(SECTION), 0))
    return entry.measures.get(measure)


def finding_of(measure: str, old: float | None, new: float, rule: Rule) -> Finding:
    """Hold one figure against its rule. Growth must be more than a limit allows, and more than the measure's noise."""
    level: Level = "ok"
    reasons = []
    sign = -1.0 if rule.more_is_better else 1.0
    if old is not None:
        moved = sign * (new - old)
        if exceeds(rule.fail, rule.floor, old, moved):
            level = "fail"
            reasons.append(f"{'lost' if sign < 0 else 'grew'} more than {rule.fail} (fail)")
        elif exceeds(rule.warn, rule.floor, old, moved):
            level = "warn"
            reasons.append(f"{'lost' if sign < 0 else 'grew'} more than {rule.warn} (warn)")
    if rule.budget is not None and sign * (new - rule.budget) > 0:
        level = "fail"
        reasons.append(f"misses the budget of {rule.budget:,g}")
    unit = measure_named(measure).unit
    return Finding(measure=measure, unit=unit, old=old, new=new, level=level, reasons=tuple(reasons))


def _status(findings: Sequence[Finding], least: Status) -> Status:
    levels: list[Status] = [least, *(finding.level for finding in findings)]
    return min(levels, key=_ORDER.__getitem__)


def _rank(result: Result) -> tuple[int, float, str]:
    """Worst first; of equal status the one that grew most."""
    finding = result.finding("bytes")
    return _ORDER[result.status], -(finding.change or 0.0 if finding else 0.0), result.name
