"""Tells what changed tools did to a file from what a changed model did: the blessed checkpoint, converted anew."""

from collections.abc import Sequence
from pathlib import Path

from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.size.baseline import Baseline
from phonefit.pipeline.size.gate import GateReport, Result, ToolEffect, resorted
from phonefit.pipeline.size.measured import Measured
from phonefit.pipeline.size.sources import Broken, Subject, reconverted, runtime_of_name


def separate_tools(
    report: GateReport,
    measured: Sequence[Measured | Broken],
    baseline: Baseline,
    subjects: Sequence[Subject],
    runs: Path,
    progress: Progress,
) -> GateReport:
    """The report with the effect of the tools on each artifact whose tools changed.

    The checkpoint of the blessed file is converted by the present tools, through the store. Its size against the
    blessed one is what the tools did; the present file's size against it is what the model did.
    """
    changed = [result for result in report.results if result.tools]
    if not changed:
        return report
    present = {item.name: item for item in measured if isinstance(item, Measured)}
    by_text = {subject.text: subject for subject in subjects}
    effects: dict[str, ToolEffect] = {}
    with progress.stage("convert blessed checkpoints with the present tools", len(changed)) as advance:
        for result in changed:
            effects[result.name] = _effect(result, present[result.name], baseline, by_text, runs, progress)
            advance(note=result.name)
    results = [
        result.model_copy(update={"tool_effect": effects[result.name]}) if result.name in effects else result
        for result in report.results
    ]
    return resorted(report, results)


def _effect(
    result: Result, item: Measured, baseline: Baseline, subjects: dict[str, Subject], runs: Path, progress: Progress
) -> ToolEffect:
    blessed = baseline.artifacts[result.name]
    if result.same_file:
        return ToolEffect(bytes=item.anatomy.bytes, note="the file is the same, byte by byte")
    subject, runtime = subjects.get(item.subject), runtime_of_name(result.name)
    if subject is None or subject.recipe is None or runtime is None:
        return ToolEffect(
            bytes=None, note="a file, not a recipe: what the tools did and what the model did cannot be told apart"
        )
    if blessed.checkpoint and blessed.checkpoint == item.checkpoint:
        return ToolEffect(bytes=item.anatomy.bytes, note="the checkpoint is the blessed one: all of it is the tools'")
    try:
        source = reconverted(subject, blessed.checkpoint, runtime, runs, progress)
    except PhonefitError as error:
        return ToolEffect(bytes=None, note=f"the blessed checkpoint cannot be converted any more: {error}")
    if source is None:
        place = runs / "store" / (blessed.checkpoint or "…")
        return ToolEffect(
            bytes=None,
            note=f"the blessed checkpoint is not in the store ({place}); keep the runs folder between checks, in "
            "continuous integration in its cache",
        )
    return ToolEffect(bytes=source.path.stat().st_size)
