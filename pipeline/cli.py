"""The command line: parse, call, print; owns the exit codes. Heavy imports happen inside the commands."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from phonefit.models.errors import PhonefitError

if TYPE_CHECKING:
    from phonefit.pipeline.search.result import SearchResult


class ExplainingGroup(TyperGroup):
    """Turns phonefit's errors and Ctrl-C into one message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PhonefitError as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: what was finished is kept, the same command goes on from there\n")
            raise SystemExit(130) from None


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

RecipeArgument = Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a YAML file.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Overrides, such as finetune.epochs=3")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder for results; finished stages in it are reused.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]


def _progress() -> Any:
    from phonefit.pipeline.progress import TerminalProgress, error_console

    return TerminalProgress(error_console())


def _print(renderable: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(renderable)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True) + "\n")


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

    loaded = load_recipe(recipe, overrides or [])
    trial = run_recipe(loaded, runs=runs, progress=_progress())
    folder = runs / loaded.name
    result: dict[str, Any] = {"trial": trial.as_json()}
    if not as_json:
        _print(trial_table(trial))
        _print(f"{stage_summary(trial)}\nfiles: {folder / 'files'} · all figures: {folder / 'trial.json'}")
    if loaded.search.after_run if search_too is None else search_too:
        found = _search(loaded, None, runs, quiet=as_json)
        result["search"] = found.as_json()
    if as_json:
        _print_json(result)
    if trial.best is None:
        raise nothing_fits(trial.files)


@app.command(epilog="Example: phonefit search demo --trials 12 search.sampler=random")
def search(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in total, those of earlier calls included.")
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Search the recipe's space; the measurements choose. The same command goes on where it stopped."""
    from phonefit.pipeline.errors import BudgetError
    from phonefit.pipeline.recipe_file import load_recipe

    result = _search(load_recipe(recipe, overrides or []), trials, runs, quiet=as_json)
    if as_json:
        _print_json(result.as_json())
    if not result.pareto:
        raise BudgetError("no trial of the search fits the budget; raise a limit, widen search.space, or add --trials")


def _search(recipe: Any, trials: int | None, runs: Path, quiet: bool) -> "SearchResult":
    from phonefit.pipeline.search.study import search as search_recipe
    from phonefit.pipeline.search.table import search_table

    result = search_recipe(recipe, trials=trials, runs=runs, progress=_progress())
    if not quiet:
        _print(search_table(result))
        _print(f"all trials: {runs / recipe.name / 'search.json'}")
    return result


@app.command(epilog="Example: phonefit bench model.tflite --threads 2 --save before.json")
def bench(
    file: Annotated[Path, typer.Argument(help="A .pte, .tflite or .onnx file, made by phonefit or not.")],
    other: Annotated[Path | None, typer.Argument(help="A second file, for --interleave.")] = None,
    device: Annotated[str, typer.Option(help="A name from `phonefit devices`.")] = "host",
    threads: Annotated[int, typer.Option(min=1, max=64)] = 1,
    warmups: Annotated[int, typer.Option(min=0, help="Inferences before the timed ones.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Timed inferences.")] = 50,
    seconds: Annotated[float | None, typer.Option(help="Keep on for this long, at least --repeats times.")] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Such as 24MB: end a process that needs more (emulator).")
    ] = None,
    interleave: Annotated[bool, typer.Option("--interleave", help="Measure two files in turn.")] = False,
    sustained: Annotated[
        str | None, typer.Option(help="Such as 10m: run that long, show the first and the last minute.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the report with all raw samples to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any model file: latency, load time, peak memory, and whether the figures can be trusted."""
    from phonefit.device_bench.bench import bench as bench_file
    from phonefit.device_bench.sustained import parse_duration
    from phonefit.device_bench.sustained import sustained as sustained_figures
    from phonefit.pipeline.budget import parse_bytes
    from phonefit.pipeline.errors import BudgetError
    from phonefit.pipeline.tables import report_table, sustained_table

    if (other is not None) != interleave:
        raise typer.BadParameter("--interleave goes with two files, and two files with --interleave")
    if other is not None:
        _interleave(file, other, device, threads, warmups, repeats, as_json)
        return
    if sustained:
        seconds = parse_duration(sustained)
    with _progress().stage(f"measure {file.name} on {device}"):
        report = bench_file(
            file,
            device=device,
            threads=threads,
            warmups=warmups,
            repeats=repeats,
            duration_seconds=seconds,
            memory_limit_bytes=parse_bytes(memory_limit) if memory_limit else None,
        )
    if save:
        from phonefit.pipeline.store import write_result

        write_result(save, report)
    if as_json:
        _print_json(report.as_json())
    else:
        _print(report_table(report))
        if sustained and not report.out_of_memory:
            _print(sustained_table(sustained_figures(report.figures["latency"].samples)))
    if report.out_of_memory:
        raise BudgetError(f"{file}: out of memory: it needs more than the limit of {memory_limit} on {device}")


def _interleave(
    first: Path, second: Path, device: str, threads: int, warmups: int, repeats: int, as_json: bool
) -> None:
    from phonefit.device_bench.devices import open_device
    from phonefit.device_bench.interleave import interleave
    from phonefit.pipeline.tables import interleaved_table

    rounds, target = 8, open_device(device)
    try:
        target.prepare()
        with _progress().stage(f"measure {first.name} and {second.name} in turn on {device}", 2 * rounds) as advance:
            result = interleave(
                first, second, target, threads=threads, warmups=warmups, repeats=repeats, rounds=rounds, advance=advance
            )
    finally:
        target.cleanup()
    if as_json:
        _print_json(result.as_json())
    else:
        _print(interleaved_table(result))


@app.command(epilog="Example: phonefit compare before.json after.json")
def compare(
    first: Annotated[Path, typer.Argument(help="A report saved with `phonefit bench --save`.")],
    second: Annotated[Path, typer.Argument(help="Another one, from the same device and settings.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two reports; refuses reports of unlike devices or settings."""
    from phonefit.device_bench.compare import compare as compare_reports
    from phonefit.device_bench.report import Report
    from phonefit.pipeline.tables import comparison_table

    comparison = compare_reports(Report.load(first), Report.load(second))
    if as_json:
        _print_json(comparison.as_json())
    else:
        _print(comparison_table(comparison, (first.stem, second.stem)))


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
    files = convert_checkpoint(checkpoint, load_recipe(recipe, wanted), out, runs, _progress())
    if as_json:
        _print_json([file.as_json() for file in files])
    else:
        _print(conversion_table(files, out))


@recipes_app.callback()
def recipes_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the recipes that come with phonefit; `phonefit recipes show NAME` prints one."""
    if context.invoked_subcommand:
        return
    from phonefit.pipeline.recipe_file import recipe_descriptions
    from phonefit.pipeline.tables import key_value_table

    descriptions = recipe_descriptions()
    if as_json:
        _print_json(descriptions)
    else:
        _print(key_value_table("recipes", descriptions))


@recipes_app.command("show", epilog="Example: phonefit recipes show demo > my-recipe.yaml")
def recipes_show(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")], as_json: JsonOption = False
) -> None:
    """Print one recipe with its comments."""
    from phonefit.pipeline.recipe_file import recipe_text

    if as_json:
        _print_json({"name": name, "text": recipe_text(name)})
    else:
        sys.stdout.write(recipe_text(name))


@app.command(epilog="Example: phonefit models --json")
def models(as_json: JsonOption = False) -> None:
    """List the model families, their sizes and packaged weights."""
    from phonefit.models.registry import MODELS
    from phonefit.pipeline.tables import models_table

    if as_json:
        _print_json(
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
        _print(models_table(MODELS.values()))


@app.command(epilog="Example: phonefit devices")
def devices(as_json: JsonOption = False) -> None:
    """List this machine, the emulators and the phones that adb reaches, and whether they can be measured on now."""
    from phonefit.device_bench.devices import list_devices
    from phonefit.pipeline.tables import devices_table

    found = list_devices()
    if as_json:
        _print_json([line.as_json() for line in found])
    else:
        _print(devices_table(found))


@app.command(epilog="Example: phonefit doctor")
def doctor(runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Check this machine and say what is missing and how to get it; exit 1 when something needed is."""
    from phonefit.pipeline.doctor import examine
    from phonefit.pipeline.tables import doctor_table

    checks = examine(runs)
    if as_json:
        _print_json([check.as_json() for check in checks])
    else:
        _print(doctor_table(checks))
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
