"""Tables about devices themselves. Nothing here computes anything."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from phonefit.device_bench.emulator.calibration import FittedCore, fitted_cores
from phonefit.pipeline.tables import table


def calibration_table(core: FittedCore, file: Path) -> RenderableType:
    """A fitted core: measured and estimated time of each model, and the error of the fit; fits 80 columns."""
    result = table("model", "measured\nms", "fitted\nms", "error", "error,\nunseen", title=f"{core.name}: {core.prior}")
    for model in core.calibration.models:
        result.add_row(
            model.name,
            f"{model.measured_nanoseconds / 1e6:.3f}",
            f"{model.fitted_nanoseconds / 1e6:.3f}",
            f"{model.error:+.1%}",
            "-" if model.unseen_error is None else f"{model.unseen_error:+.1%}",
        )
    lines = [Text(core.calibration.summary(core.device.name), "bold")]
    if core.calibration.unseen_error is None:
        lines.append(Text("measure more models to know the error for an unseen one", "yellow"))
    lines += [Text(f"? {note}", "yellow") for note in core.notes]
    lines += [Text(f"written to {file}", "dim"), Text(f"use it: --device {core_device(core, file)}", "dim")]
    return Group(result, *lines)


def core_device(core: FittedCore, file: Path) -> str:
    """What `--device` takes for a fitted core that was written to this file."""
    known = fitted_cores().get(core.name)
    return f"emulator:counts:core={core.name if known == file else file}"
