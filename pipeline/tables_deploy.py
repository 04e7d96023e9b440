"""Tables of what was put on a phone. Nothing here computes anything."""

from rich.console import Group, RenderableType
from rich.text import Text

from phonefit.pipeline.deploy import Deployment, Removal
from phonefit.pipeline.tables import table


def deployment_table(done: Deployment) -> RenderableType:
    """The app and each model, with the inference that verified it; fits 80 columns."""
    result = table("model", "MB", "copied", "load\nms", "first\nms", "difference", title=done.device.name)
    for model in done.models:
        result.add_row(
            model.name,
            f"{model.bytes / 1e6:.2f}",
            "now" if model.pushed else "was there",
            f"{model.load_milliseconds:.1f}",
            f"{model.first_milliseconds:.1f}",
            f"{model.max_difference:.2g}{' ✗' if model.problem else ''}",
        )
    runtimes = ", ".join(f"{name} {version}" for name, version in done.runtimes.items())
    lines = [Text(f"app {done.app_version} ({runtimes}): {done.app}", "bold")]
    lines += [Text(f"✗ {model.name}: {model.problem}", "red") for model in done.models if model.problem]
    lines += [Text(f"? {remark}", "yellow") for remark in done.remarks]
    note = "first: one inference without a warm-up; difference: of its outputs from this machine's, of their range"
    lines += [Text(note, "dim"), Text(f"measure: phonefit bench FILE --device app:{done.serial}", "dim")]
    return Group(result, *lines)


def removal_text(done: Removal) -> str:
    """What was removed, in a line or two."""
    app = "the app and what it stored were removed" if done.app_was_there else "the app was not there"
    models = ", ".join(done.models) or "none were there"
    return f"{done.serial}: {app}; models: {models}"
