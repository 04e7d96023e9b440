"""The gate from end to end: read the baseline, measure, judge, look at tools, latency and creep, note the history."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.size.baseline import Baseline, load_baseline
from phonefit.pipeline.size.gate import GateReport, Result, judge, measures_wanted, resorted
from phonefit.pipeline.size.history import (
    HistoryLine,
    Since,
    append,
    history_path,
    limited_creep,
    lines_of,
    load_history,
    parse_since,
)
from phonefit.pipeline.size.latency import with_latency
from phonefit.pipeline.size.measured import Measured, measure_all
from phonefit.pipeline.size.repository import tag_day
from phonefit.pipeline.size.sources import Broken, read_subjects
from phonefit.pipeline.size.tool_change import separate_tools


@dataclass(frozen=True)
class CheckOptions:
    """Where things are, and what to do besides.

    Attributes:
        since: period of creep; None takes that of the baseline.
        record: append what was measured to the history.
        history: its file; None takes the one beside the baseline.
        now: in UTC.
    """

    baseline: Path
    runs: Path
    now: datetime.datetime
    since: str | None = None
    record: bool = False
    commit: str = ""
    history: Path | None = None

    @property
    def history_file(self) -> Path:
        """Where the history is."""
        return self.history or history_path(self.baseline)


def check(texts: Sequence[str], options: CheckOptions, progress: Progress) -> GateReport:
    """Hold recipes and files against the baseline; without any, those that the baseline names.

    Raises:
        FileFormatError: the baseline is missing or wrong, or a file is not there.
        RecipeError, UnknownNameError: a recipe is wrong, or there is nothing to check.
    """
    baseline = load_baseline(options.baseline)
    subjects = read_subjects(subjects_or_default(texts, baseline, options.baseline))
    since = parse_since(options.since or baseline.since, options.now.date(), tag_day)
    measured = list(measure_all(subjects, lambda name: measures_wanted(baseline, name), options.runs, progress))
    report = judge(measured, baseline, whole=not texts)
    report = separate_tools(report, measured, baseline, subjects, options.runs, progress)
    report = with_latency(report, measured, baseline, options.runs, progress)
    lines = lines_of(found_in(measured), "check", options.now, options.commit)
    if since is not None:
        history = [*load_history(options.history_file), *lines]
        report = resorted(report, [with_creep(result, baseline, history, since) for result in report.results])
    if options.record:
        append(options.history_file, lines)
    return report


def with_creep(result: Result, baseline: Baseline, history: Sequence[HistoryLine], since: Since) -> Result:
    """The result with a warning for each measure that crept up since then."""
    found = [
        limited_creep(history, result.name, finding.measure, since, baseline.limits) for finding in result.findings
    ]
    texts = [f"crept up: {item.text}" for item in found if item is not None and item.exceeded]
    if not texts:
        return result
    status = "warn" if result.status == "ok" else result.status
    return result.model_copy(update={"status": status, "remarks": (*result.remarks, *texts)})


def subjects_or_default(texts: Sequence[str], baseline: Baseline, path: Path) -> Sequence[str]:
    """What was given, or else what the baseline names.

    Raises:
        RecipeError: neither names anything.
    """
    if not texts and not baseline.subjects:
        raise RecipeError(
            f'nothing to measure: give recipes or model files, or list them in {path} as subjects = ["…"]'
        )
    return texts or baseline.subjects


def found_in(measured: Sequence[Measured | Broken]) -> list[Measured]:
    """Those that could be measured."""
    return [item for item in measured if isinstance(item, Measured)]
