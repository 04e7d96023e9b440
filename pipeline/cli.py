"""The command line: parse, call, print; owns the exit codes. Heavy imports happen inside the commands."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from phonefit.pipeline.cli_common import (
    ExplainingGroup,
    JsonOption,
    OverridesArgument,
    RecipeArgument,
    RunsOption,
    print_json,
    print_rich,
    terminal_progress,
)
from phonefit.pipeline.cli_deploy import app as deploy_app
from phonefit.pipeline.cli_devices import app as devices_app
from phonefit.pipeline.cli_explain import app as explain_app
from phonefit.pipeline.cli_faces import app as faces_app
from phonefit.pipeline.cli_search import app as search_app
from phonefit.pipeline.cli_search import run_search
from phonefit.pipeline.cli_size import app as size_app

app = typer.Typer(
    cls=ExplainingGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit a PyTorch vision model to your data and to a given phone: fine-tune, compress, convert, measure, search.",
    epilog="Exit codes: 0 done, 1 a budget or gate failed, 2 bad use or input, 3 measuring failed, 130 interrupted",
)
recipes_app = typer.Typer(
    help="List and show the recipes that come with phonefit.",
    epilog="Example: phonefit recipes show demo",
    invoke_without_command=True,
)
app.add_typer(recipes_app, name="recipes")
app.add_typer(search_app)
app.add_typer(devices_app)
app.add_typer(deploy_app)
app.add_typer(size_app, name="size")
app.add_typer(explain_app)
app.add_typer(faces_app)


@app.command(epilog="Example: phonefit run demo finetune.epochs=2 'convert.runtimes=[tflite]'")
def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    runs: RunsOption = Path("runs"),
    search_too: Annotated[
        bool | None,
        typer.Option("--search/--no-search", help="Go on with the search; default: search.after_run."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune, compress, convert, evaluate and measure what a recipe says; exit 1 when nothing fits its budget."""
    from phonefit.pipeline.budget import nothing_fits
    from phonefit.pipeline.recipe_file import load_recipe
    from phonefit.pipeline.run import run as run_recipe
    from phonefit.pipeline.tables import stage_summary, trial_table
    from phonefit.pipeline.tables_quality import quality_tables

    loaded = load_recipe(recipe, overrides or [])
    trial = run_recipe(loaded, runs=runs, progress=terminal_progress())
    folder = runs / loaded.name
    result: dict[str, Any] = {"trial": trial.as_json()}
    if not as_json:
        print_rich(trial_table(trial))
        print_rich(quality_tables(trial))
        print_rich(f"{stage_summary(trial)}\nfiles: {folder / 'files'} · all figures: {folder / 'trial.json'}")
        print_rich(f"where {trial.shown.name} is wrong: {folder / 'errors.html'}")
    if loaded.search.after_run if search_too is None else search_too:
        found = run_search(loaded, None, runs, quiet=as_json)
        result["search"] = found.as_json()
    if as_json:
        print_json(result)
    if trial.best is None:
        raise nothing_fits(trial.files)


@app.command(epilog="Example: phonefit convert runs/store/finetune/KEY my-recipe.yaml --runtime tflite --out files")
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Folder with model.json and weights.safetensors.")],
    recipe: Annotated[str, typer.Argument(help="Recipe with the data for calibration and parity, and the limits.")],
    overrides: OverridesArgument = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="executorch, tflite or onnx; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("files"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Convert one checkpoint and check that each file computes what the checkpoint computes."""
    from phonefit.pipeline.recipe_file import load_recipe
    from phonefit.pipeline.run import convert_checkpoint
    from phonefit.pipeline.tables import conversion_table

    wanted = [*(overrides or []), *([f"convert.runtimes=[{','.join(runtime)}]"] if runtime else [])]
    files = convert_checkpoint(checkpoint, load_recipe(recipe, wanted), out, runs, terminal_progress())
    if as_json:
        print_json([file.as_json() for file in files])
    else:
        print_rich(conversion_table(files, out))


@recipes_app.callback()
def recipes_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the recipes that come with phonefit; `phonefit recipes show NAME` prints one."""
    if context.invoked_subcommand:
        return
    from phonefit.pipeline.recipe_file import recipe_descriptions
    from phonefit.pipeline.tables import key_value_table

    descriptions = recipe_descriptions()
    if as_json:
        print_json(descriptions)
    else:
        print_rich(key_value_table("recipes", descriptions))


@recipes_app.command("show", epilog="Example: phonefit recipes show demo > my-recipe.yaml")
def recipes_show(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")], as_json: JsonOption = False
) -> None:
    """Print one recipe with its comments."""
    from phonefit.pipeline.recipe_file import recipe_text

    if as_json:
        print_json({"name": name, "text": recipe_text(name)})
    else:
        sys.stdout.write(recipe_text(name))


@app.command(epilog="Example: phonefit models --json")
def models(as_json: JsonOption = False) -> None:
    """List the model families, their sizes and packaged weights."""
    from phonefit.models.registry import MODELS
    from phonefit.pipeline.tables import models_table

    if as_json:
        print_json(
            {
                name: {
                    "summary": spec.summary,
                    "parameters_millions": spec.parameters,
                    "preprocess": spec.preprocess.as_json(),
                    "minimum_size": spec.minimum_size,
                    "pretrained": spec.pretrained.published if spec.pretrained else None,
                }
                for name, spec in MODELS.items()
            }
        )
    else:
        print_rich(models_table(MODELS.values()))


@app.command(epilog="Example: phonefit doctor")
def doctor(runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Check this machine and say what is missing and how to get it; exit 1 when something needed is."""
    from phonefit.pipeline.doctor import examine
    from phonefit.pipeline.tables import doctor_table

    checks = examine(runs)
    if as_json:
        print_json([check.as_json() for check in checks])
    else:
        print_rich(doctor_table(checks))
    if any(check.needed and not check.passed for check in checks):
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from phonefit import __version__

        sys.stdout.write(f"phonefit {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Entry point of the `phonefit` command."""
    app()


if __name__ == "__main__":
    main()
