"""Accept present figures as the new baseline, with a reason."""

from collections.abc import Sequence

from phonefit.device_bench.device import MeasurementError
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import GateError, RecipeError
from phonefit.pipeline.folders import held
from phonefit.pipeline.size.baseline import Baseline, Entry, load_baseline, save_entries, save_lock
from phonefit.pipeline.size.check import CheckOptions, found_in, subjects_or_default
from phonefit.pipeline.size.gate import GateReport, judge, measures_wanted
from phonefit.pipeline.size.history import append, lines_of
from phonefit.pipeline.size.measured import Measured, measure_all
from phonefit.pipeline.size.sources import Broken, read_subjects
from phonefit.pipeline.store import explain_disk_errors


def bless(
    texts: Sequence[str], reason: str, measures: Sequence[str], options: CheckOptions, progress: Progress
) -> tuple[GateReport, tuple[str, ...]]:
    """Write what recipes and files measure now into the baseline; without any, those that the baseline names.

    Artifacts whose figures did not change keep their date and reason. Nothing is written unless all could be measured.

    Args:
        measures: figures to keep beside bytes, such as "instructions".

    Returns:
        What was accepted, against the baseline before; and the names of the artifacts that were written or taken out.

    Raises:
        RecipeError: there is no reason, or nothing to measure; as `check` else.
        MeasurementError: something could not be measured.
        GateError: a budget is missed: a bless does not lift it.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise RecipeError(
            "--reason is empty; say in a sentence why the new sizes are right: it is kept in the baseline"
        )
    baseline = load_baseline(options.baseline) if options.baseline.is_file() else Baseline()
    given = subjects_or_default(texts, baseline, options.baseline)
    subjects = read_subjects(given)

    def wanted(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*measures_wanted(baseline, name), *measures]))

    measured = list(measure_all(subjects, wanted, options.runs, progress))
    broken = [item for item in measured if isinstance(item, Broken)]
    if broken:
        listed = "\n".join(f"  {item.name}: {item.error}" for item in broken)
        raise MeasurementError(f"nothing was blessed: {len(broken)} could not be measured\n{listed}")
    report = judge(measured, baseline, whole=not texts)
    over = [f"  {result.name}: {finding.measure} {finding.new:,g} {reason}" for result in report.results
            for finding in result.findings for reason in finding.reasons if "budget" in reason]  # fmt: skip
    if over:
        raise GateError(
            f"nothing was blessed: a bless does not lift a budget; raise it in {options.baseline} or shrink the file\n"
            + "\n".join(over)
        )
    found = found_in(measured)
    entries = {item.name: _entry(item, reason, options, baseline.artifacts.get(item.name)) for item in found}
    changed = {name: entry for name, entry in entries.items() if entry != baseline.artifacts.get(name)}
    gone = tuple(result.name for result in report.results if result.name not in entries)
    with explain_disk_errors(options.baseline.parent), held(options.runs / "store" / "locks" / "size-bless"):
        if changed or gone or set(given) - set(baseline.subjects):
            anatomies = {item.name: item.anatomy for item in found if item.name in changed}
            save_lock(options.baseline, anatomies, gone)
            save_entries(options.baseline, changed, tuple(given), gone)
        accepted = [item for item in found if not _same_figures(entries[item.name], baseline.artifacts.get(item.name))]
        append(options.history_file, lines_of(accepted, "bless", options.now, options.commit, reason))
    return report, (*changed, *gone)


def _entry(item: Measured, reason: str, options: CheckOptions, old: Entry | None) -> Entry:
    new = Entry(
        subject=item.subject,
        sha256=item.anatomy.sha256,
        bytes=item.anatomy.bytes,
        precision=item.precision,
        checkpoint=item.checkpoint,
        blessed=options.now.date(),
        reason=reason,
        sections=item.anatomy.sections(),
        measures=item.measures,
        tools=item.tools,
    )
    if old is None or not _same_figures(new, old):
        return new
    return new.model_copy(update={"blessed": old.blessed, "reason": old.reason})


def _same_figures(new: Entry, old: Entry | None) -> bool:
    return old is not None and (new.sha256, new.measures) == (old.sha256, old.measures)
