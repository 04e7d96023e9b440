"""What adaptation and compression did to the quality, and figures of single labels, for a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from phonefit.pipeline.result import FileResult, TrialResult
from phonefit.pipeline.tables import quality_text, table


def quality_tables(trial: TrialResult) -> RenderableType:
    """Before adaptation, adapted, adapted and compressed, on the same pictures; then each label where there are any."""
    parts: list[RenderableType] = [_adaptation(trial)]
    if labels := _labels(trial.shown):
        parts.append(labels)
    return Group(*parts)


def _adaptation(trial: TrialResult) -> RenderableType:
    name, shown = trial.quality_name, trial.shown
    unit = trial.quality_unit or ("%" if trial.quality_better == "higher" else "")
    result = table(f"{name.replace('_', ' ')} on the validation side", unit or "value", "95 % interval")
    if trial.baseline is not None:
        words, quality = trial.baseline
        result.add_row(f"without looking: {words}", quality_text(trial, quality), "")
    if trial.quality_before is not None:
        result.add_row("before adaptation", quality_text(trial, trial.quality_before), "")
    result.add_row("adapted", quality_text(trial, trial.checkpoint_metrics["original"][name]), "")
    what = "adapted and compressed" if shown.variant == "compressed" else "adapted and converted"
    ends = [shown.quality.get(f"{name}_{end}") for end in ("low", "high")]
    interval = " to ".join(quality_text(trial, end) for end in ends if end is not None)
    result.add_row(f"{what}: {shown.artifact.runtime} {shown.artifact.precision}", _of(trial, shown), interval)
    return result


def _of(trial: TrialResult, file: FileResult) -> str:
    return quality_text(trial, file.quality[trial.quality_name])


def _labels(file: FileResult) -> RenderableType | None:
    """Figures named NAME/LABEL: a row for each label."""
    figures = {tuple(name.split("/", 1)): value for name, value in file.quality.items() if "/" in name}
    if not figures:
        return None
    names = list(dict.fromkeys(name for name, _ in figures))
    result = table("label", *(name.replace("_", " ") for name in names))
    for label in dict.fromkeys(label for _, label in figures):
        result.add_row(Text(label), *(f"{figures[name, label]:.3f}" for name in names))
    return result
