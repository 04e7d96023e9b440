"""The command that explains a checkpoint layer by layer."""

from pathlib import Path
from typing import Annotated

import typer

from phonefit.pipeline.cli_common import JsonOption, RunsOption, print_json, print_rich, terminal_progress

app = typer.Typer()


@app.command(epilog="Example: phonefit explain demo --no-device --sort int8 --html layers.html")
def explain(
    first: Annotated[
        str,
        typer.Argument(
            metavar="[CHECKPOINT] RECIPE",
            help="Folder of a checkpoint and the recipe that it was made with, or a recipe alone: its fine-tuned one.",
        ),
    ],
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Overrides, such as bench.device=host")
    ] = None,
    no_device: Annotated[
        bool, typer.Option("--no-device", help="Do not ask the recipe's bench.device what each layer takes.")
    ] = False,
    sort: Annotated[
        str | None,
        typer.Option(help="time, macs, bytes, int8, prune, decompose or network; default: time, without it macs."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Layers to show.")] = 12,
    show_all: Annotated[bool, typer.Option("--all", help="Show every layer.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Say of each layer what it costs, and what int8, pruning and decomposition would do to it."""
    from phonefit.pipeline.explain.gather import explain as explain_layers
    from phonefit.pipeline.explain.result import order_named
    from phonefit.pipeline.recipe_file import load_recipe
    from phonefit.pipeline.store import explain_disk_errors, write_atomically
    from phonefit.pipeline.tables_explain import explanation_tables

    order = order_named(sort or ("macs" if no_device else "time"))
    if order == "time" and no_device:
        raise typer.BadParameter("--sort time needs the device's times; leave --no-device out, or sort by macs")
    checkpoint, recipe, overrides = _divided([first, *(others or [])])
    loaded = load_recipe(recipe, overrides)
    if html is not None:  # before anything long: it may not be possible
        with explain_disk_errors(html.parent):
            html.parent.mkdir(parents=True, exist_ok=True)
    found = explain_layers(loaded, checkpoint, runs=runs, progress=terminal_progress(), device=not no_device)
    if html is not None:
        from phonefit.pipeline.explain.plot import page

        with explain_disk_errors(html.parent):
            write_atomically(html, page(found).encode())
    if as_json:
        print_json(found.as_json())
    else:
        print_rich(explanation_tables(found, order, None if show_all else top))
        if html is not None:
            print_rich(f"plots: {html}")


def _divided(words: list[str]) -> tuple[Path | None, str, list[str]]:
    """Checkpoint, recipe and overrides: an override has an equals sign, the other two have none.

    Raises:
        BadParameter: a checkpoint without a recipe.
    """
    if len(words) > 1 and "=" not in words[1]:
        return Path(words[0]), words[1], words[2:]
    if (Path(words[0]) / "model.json").is_file():
        raise typer.BadParameter(f"{words[0]} is a checkpoint: give the recipe that it was made with, too")
    return None, words[0], words[1:]
