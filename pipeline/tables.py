"""Results as tables for a terminal. Nothing here computes anything."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phonefit.device_bench.compare import Comparison
from phonefit.device_bench.devices import DEVICES, DeviceLine
from phonefit.device_bench.energy import drain_sentence
from phonefit.device_bench.interleave import Interleaved
from phonefit.device_bench.report import Figure, Report
from phonefit.device_bench.sustained import Sustained
from phonefit.models.artifact import Artifact
from phonefit.models.spec import ModelSpec
from phonefit.pipeline.budget import describe
from phonefit.pipeline.doctor import Check
from phonefit.pipeline.result import ConvertedFile, TrialResult
from phonefit.pipeline.tables_plan import plan_table


def megabytes(size: float) -> str:
    """Bytes as decimal megabytes."""
    return f"{size / 1e6:.2f} MB"


def delegated_share(artifact: Artifact) -> str:
    """Share of the operators that the fast backend takes; a dash where the runtime has no such share."""
    share = artifact.delegation.share if artifact.delegation else None
    return "-" if share is None else f"{share:.0%}"


def table(*columns: str, title: str = "", numbers: bool = True) -> Table:
    """A table whose first column is text; the others are aligned as numbers, or as text too."""
    result = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, column in enumerate(columns):
        result.add_column(column, justify="right" if index and numbers else "left", overflow="fold")
    return result


def trial_table(trial: TrialResult) -> RenderableType:
    """Every file of a trial, original against compressed; fits 80 columns."""
    quality = trial.quality_name
    unit = trial.quality_unit or ("%" if trial.quality_better == "higher" else "")
    columns = (f"valid.\n{unit}", f"test\n{unit}", "size\nMB", "median\nms", "p90\nms", "peak\nMB", "dele-\ngated", "")
    name = quality.replace("_", " ")
    result = table("file", *columns, title=f"{name} on the validation and the test side, size, latency, peak memory")
    for index, file in enumerate(trial.files):
        if index == 0 or file.variant != trial.files[index - 1].variant:
            result.add_row(Text(file.variant, "bold"))
        result.add_row(
            f"  {file.artifact.runtime} {file.artifact.precision}{' ★' if index == trial.best else ''}",
            quality_text(trial, file.quality[quality]),
            quality_text(trial, file.test_quality[quality]) if file.test_quality else "",
            f"{file.artifact.bytes / 1e6:.2f}",
            *_costs(file.report),
            delegated_share(file.artifact),
            Text("over", "red") if file.violations else Text("fits", "green"),
        )
        for report in file.further_reports:
            result.add_row(Text(f"    on {report.device.name}", "dim"), "", "", "", *_costs(report))
    notes = [f"★ best file that fits the budget. Measured on {trial.files[0].report.device.name}"]
    if trial.files[0].further_reports:
        notes[0] += " in the first line of each file; it must fit on every device"
    if not all(file.trusted for file in trial.files):
        notes.append("? unstable measurement: the reasons are in trial.json; measure again on an idle machine")
    if planned := [f"{file.name} {file.planned_memory / 1e6:.2f}" for file in trial.files if file.planned_memory]:
        notes.append(
            f"activations by the files' own memory plans, MB (static; the peak is measured): {', '.join(planned)}"
        )
    notes += trial.notes
    notes += [f"{file.name}: {describe(violation)}" for file in trial.files for violation in file.violations]
    parts = [result, *(Text(note, "dim") for note in notes), ratio_table(trial)]
    return Group(*([plan_table(trial.plan)] if trial.plan else []), *parts)


def _costs(report: Report) -> tuple[str, str, str]:
    """Median and p90 latency and peak memory as numbers in a table."""
    return (
        f"{report.median_milliseconds():.2f}{'' if report.trusted else '?'}",
        f"{report.p90_milliseconds():.2f}",
        f"{report.peak_memory_bytes() / 1e6:.1f}",
    )


def quality_text(trial: TrialResult, value: float) -> str:
    """A quality in %, or an error in its unit, without the unit."""
    return f"{value * 100:.1f}" if trial.quality_better == "higher" else f"{value:.3g}"


def ratio_table(trial: TrialResult) -> RenderableType:
    """Compressed against original of the same runtime, as ratios."""
    files, quality = trial.files, trial.quality_name
    originals = {file.artifact.runtime: file for file in files if file.variant == "original"}
    pairs = [(originals[file.artifact.runtime], file) for file in files if file.variant == "compressed"
             and file.artifact.runtime in originals]  # fmt: skip
    if not pairs:
        return Text("")
    result = table("compressed against original", quality.replace("_", " "), "smaller", "faster", "less memory")
    for before, after in pairs:
        for earlier, later in zip(before.reports, after.reports, strict=True):
            where = f", {later.device.name}" if after.further_reports else ""
            result.add_row(
                f"{after.artifact.runtime}{where}",
                _change(trial, before.quality[quality], after.quality[quality]),
                f"{before.artifact.bytes / after.artifact.bytes:.2f}x",
                f"{earlier.median_milliseconds() / later.median_milliseconds():.2f}x",
                f"{earlier.peak_memory_bytes() / max(1.0, later.peak_memory_bytes()):.2f}x",
            )
    return result


def _change(trial: TrialResult, before: float, after: float) -> str:
    if trial.quality_better == "higher":
        return f"{(after - before) * 100:+.2f} points"
    return f"{after / before - 1:+.1%}" if before else ""


def stage_summary(trial: TrialResult) -> str:
    """How much of a trial was in the store already."""
    reused = [stage for stage in trial.stages if stage.reused]
    saved = sum(stage.seconds for stage in reused)
    return f"{len(reused)} of {len(trial.stages)} stages were in the store ({saved:.0f} s not spent again)"


def report_table(report: Report) -> RenderableType:
    """One measurement."""
    result = table(report.model_name, "value", "source")
    latency, load, peak = (report.figures[name] for name in ("latency", "load", "peak_memory"))
    rows = [
        ("device", report.device.name, ""),
        ("runtime", report.runtime, ""),
        ("threads", str(report.settings.get("threads", "")), ""),
        ("size", megabytes(report.model_bytes), ""),
        ("latency, median", f"{report.median_milliseconds():.3f} ms", latency.source),
        ("latency, p90", f"{report.p90_milliseconds():.3f} ms", latency.source),
        ("variation (CV)", f"{report.variation():.1%}", ""),
        ("samples", str(len(latency.samples)), ""),
        ("load", f"{report.load_milliseconds():.2f} ms", load.source),
        ("peak memory", megabytes(report.peak_memory_bytes()), peak.source),
    ]
    for name, row_name in _ENERGY_ROWS.items():
        if name in report.figures and report.figures[name].samples:
            rows.append((row_name, energy_text(report.figures[name]), report.figures[name].source))
    counted = {name: figure for name, figure in report.figures.items() if figure.source == "counted"}
    for name, figure in counted.items():
        if name != "peak_memory" and not name.startswith("load_") and figure.samples:
            rows.append((name.replace("_", " "), f"{figure.samples[-1]:,.0f}", figure.source))
    for row in rows:
        result.add_row(*row)
    notes = [Text(note, "dim") for note in energy_notes(report)]
    if report.trusted:
        return Group(result, *notes, Text("stable: nothing speaks against these figures", "green"))
    attempts = report.settings.get("attempts")
    doubted = "not to be trusted" + (f", after {attempts} attempts" if attempts not in (None, 1) else "")
    doubts = (Text(f"? {item.reason}: {item.remedy}", "yellow") for item in report.untrusted)
    return Group(result, *notes, Text(f"{doubted}:", "yellow"), *doubts)


_ENERGY_ROWS = {
    "energy": "energy of an inference",
    "energy_first_minute": "  in the first minute",
    "energy_last_minute": "  in the last minute",
}


def energy_text(figure: Figure) -> str:
    """Microjoules, with half of the 95 % confidence interval where it is known."""
    value, spread = figure.samples[0], figure.uncertainty
    digits = 0 if abs(value) >= 100 else 2
    return f"{value:,.{digits}f}{'' if spread is None else f' ± {spread:,.{digits}f}'} uJ"


def energy_notes(report: Report) -> list[str]:
    """Where an energy figure is from, or why there is none, and what it means for the battery."""
    figure = report.figures.get("energy")
    if figure is None:
        return []
    if not figure.samples:
        return [f"no energy figure: {figure.note}"] if report.settings.get("energy") else []
    notes = [f"energy: {figure.note}"]
    capacity = report.battery_capacity()
    if capacity is not None:
        drain = drain_sentence(figure.samples[0], figure.uncertainty, capacity[0], modelled=figure.source == "modelled")
        notes.append(f"{drain} (capacity: {capacity[1]})")
    elif figure.source == "measured":
        notes.append("the device does not tell its battery's capacity, so the drain of the battery is not known")
    return notes


def comparison_table(comparison: Comparison, names: tuple[str, str]) -> RenderableType:
    """Two measurements side by side."""
    result = table("", *names, "ratio")
    for row in comparison.rows:
        result.add_row(row.name, row.first, row.second, f"{row.ratio:.3f}x")
    return Group(result, Text(comparison.verdict, "bold"))


def key_value_table(title: str, values: Mapping[str, str]) -> Table:
    """Two text columns."""
    result = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in values.items():
        result.add_row(name, value)
    return result


def conversion_table(files: Sequence[ConvertedFile], folder: Path) -> RenderableType:
    """Files made by `phonefit convert`."""
    result = table("file", "precision", "size", "cosine", "SNR", "agreement", "delegated")
    for file in files:
        parity = file.parity
        result.add_row(
            str(folder / file.artifact.file),
            file.artifact.precision,
            megabytes(file.artifact.bytes),
            f"{parity.cosine:.5f}",
            "exact" if parity.snr_db is None else f"{parity.snr_db:.1f} dB",
            f"{parity.agreement:.1%}",
            delegated_share(file.artifact),
        )
    return result


def models_table(specs: Iterable[ModelSpec]) -> Table:
    """Model families."""
    result = table("model", "parameters", "usual input", "smallest", "packaged weights", numbers=False)
    for spec in specs:
        weights = f"{spec.pretrained.published} ({spec.pretrained.licence})" if spec.pretrained else "-"
        result.add_row(
            spec.name,
            f"{spec.parameters:.1f} M",
            f"{spec.preprocess.height}x{spec.preprocess.width}",
            str(spec.minimum_size),
            weights,
        )
    return result


def devices_table(devices: Sequence[DeviceLine]) -> RenderableType:
    """Devices, what they are and what keeps them from being measured on."""
    result = table("device", "state", "fit", "model or processor", "cores", "memory", "system", numbers=False)
    for line in devices:
        info = line.info
        facts = (info.name, str(info.cores), f"{info.ram_bytes / 2**30:.1f} GiB", info.operating_system) if info else ()
        result.add_row(line.name, line.state, "yes" if line.trusted else "no", *facts)
    options = ", ".join(f"{name}:{kind.options}" for name, kind in DEVICES.items() if kind.options)
    remarks = [Text(f"{line.name}: {line.remarks}", "yellow") for line in devices if line.remarks]
    return Group(result, *remarks, Text(f"with options: {options}", "dim"))


def doctor_table(checks: Sequence[Check]) -> Table:
    """What is there and what is missing."""
    result = table("check", "found", "what to do", numbers=False)
    for check in checks:
        mark = (
            Text("✓ ", "green")
            if check.passed
            else Text("✗ " if check.needed else "! ", "red" if check.needed else "yellow")
        )
        result.add_row(mark + Text(check.name), check.found, "" if check.passed else check.remedy)
    return result


def interleaved_table(result: Interleaved) -> RenderableType:
    """Two files measured in turn."""
    rows = table("file", "median", "p90", "peak memory", "size")
    for report in (result.first, result.second):
        rows.add_row(
            report.model_name,
            f"{report.median_milliseconds():.3f} ms",
            f"{report.p90_milliseconds():.3f} ms",
            megabytes(report.peak_memory_bytes()),
            megabytes(report.model_bytes),
        )
    return Group(rows, Text(result.verdict, "bold"))


def sustained_table(result: Sustained) -> RenderableType:
    """First and last minute of a long run."""
    rows = table("minute", "inferences", "median", "p90")
    for name, window in (("first", result.first), ("last", result.last)):
        rows.add_row(
            name, str(window.samples), f"{window.median_milliseconds:.3f} ms", f"{window.p90_milliseconds:.3f} ms"
        )
    after = result.throttled_after_seconds
    verdict = "no throttling" if after is None else f"throttled from second {after:.0f} on"
    return Group(rows, Text(f"{verdict}: last minute / first minute = {result.throttling_ratio:.3f}", "bold"))
