"""The commands that search and read a search: search, export-best."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from phonefit.pipeline.cli_common import (
    JsonOption,
    OverridesArgument,
    RecipeArgument,
    RunsOption,
    print_json,
    print_rich,
    terminal_progress,
)

if TYPE_CHECKING:
    from phonefit.pipeline.recipe import Recipe
    from phonefit.pipeline.search.result import SearchResult

app = typer.Typer()


@app.command(epilog="Example: phonefit search demo --trials 12 search.sampler=random")
def search(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in total, those of earlier calls included.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that run trials at the same time; default: the usable cores divided by the recipe's "
            "threads, at least 1. With more than one, the points that are tried can differ from call to call.",
        ),
    ] = None,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(help="ray: trials are tasks of a Ray cluster, see docs/scaling.md; extra phonefit[ray]."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", help="HOST:6379 of a running cluster; default: start one on this machine."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Instead of search.storage: sqlite, journal, or postgresql://USER@HOST/DATABASE."),
    ] = None,
    show: Annotated[
        bool,
        typer.Option("--show", help="Run nothing: front, importances, convergence, reuse, failures of what there is."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="With --show: also write a page with plots to this file.")
    ] = None,
    with_dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Run nothing: serve optuna-dashboard on the study until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the dashboard; 0 takes a free one.")] = 8080,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Search the recipe's space; the measurements choose. The same command goes on where it stopped."""
    from phonefit.pipeline.errors import BudgetError
    from phonefit.pipeline.recipe_file import load_recipe

    loaded = load_recipe(recipe, [*(overrides or []), *([f"search.storage={storage}"] if storage else [])])
    if html is not None and not show:
        raise typer.BadParameter("--html goes with --show")
    if (show or with_dashboard) and (trials or workers) is not None:
        raise typer.BadParameter("--show and --dashboard run no trials; leave --trials and --workers out")
    if show and with_dashboard:
        raise typer.BadParameter("give either --show or --dashboard")
    if executor == "ray" and workers is not None:
        raise typer.BadParameter("with --executor ray the cluster decides how many trials run; leave --workers out")
    if executor != "ray" and ray_address is not None:
        raise typer.BadParameter("--ray-address goes with --executor ray")
    if show:
        _show(loaded, runs, html, as_json)
        return
    if with_dashboard:
        _serve(loaded, runs, port)
        return
    result = run_search(
        loaded, trials, runs, quiet=as_json, workers=workers, executor=executor, ray_address=ray_address
    )
    if as_json:
        print_json(result.as_json())
    if not result.pareto:
        raise BudgetError("no trial of the search fits the budget; raise a limit, widen search.space, or add --trials")


def run_search(
    recipe: "Recipe",
    trials: int | None,
    runs: Path,
    quiet: bool,
    workers: int | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
) -> "SearchResult":
    """Search, and print the front unless `quiet`."""
    from phonefit.pipeline.search.local import default_workers
    from phonefit.pipeline.search.study import search as search_recipe
    from phonefit.pipeline.search.table import search_table

    result = search_recipe(
        recipe,
        trials=trials,
        runs=runs,
        progress=terminal_progress(),
        workers=workers or default_workers(recipe),
        executor=executor,
        ray_address=ray_address,
    )
    if not quiet:
        print_rich(search_table(result))
        print_rich(f"all trials: {runs / recipe.name / 'search.json'}")
    return result


def _show(recipe: "Recipe", runs: Path, html: Path | None, as_json: bool) -> None:
    from phonefit.pipeline.search.summary import summarise_study
    from phonefit.pipeline.search.summary_table import summary_table

    summary = summarise_study(recipe, runs)
    if html is not None:
        from phonefit.pipeline.search.summary_page import summary_page

        _write(html, summary_page(summary))
    if as_json:
        print_json(summary.as_json())
    else:
        print_rich(summary_table(summary))
        if html is not None:
            print_rich(f"page: {html}")


def _serve(recipe: "Recipe", runs: Path, port: int) -> None:
    from phonefit.pipeline.search.dashboard import HOST, dashboard

    with dashboard(recipe, runs, port) as server:
        sys.stdout.write(f"dashboard of {recipe.name}: http://{HOST}:{server.server_port}/ (Ctrl-C ends it)\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


@app.command("export-best", epilog="Example: phonefit export-best demo --out best.yaml")
def export_best(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    trial: Annotated[
        int | None,
        typer.Option("--trial", min=0, help="This one; default: the best first objective of those that fit."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: print it.")] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write the best trial of a search as a plain recipe that gives its files again."""
    from phonefit.pipeline.errors import RecipeError
    from phonefit.pipeline.recipe_file import load_recipe
    from phonefit.pipeline.search.export import chosen_trial, exported_recipe, recipe_yaml
    from phonefit.pipeline.search.summary import read_result

    loaded = load_recipe(recipe, overrides or [])
    result = read_result(loaded, runs)
    best = chosen_trial(result, trial)
    exported = exported_recipe(loaded, best, runs)
    text = recipe_yaml(exported, best, result, runs, chosen=trial is not None)
    if out is not None:
        if out.exists():
            raise RecipeError(f"{out} exists already; give another name, or remove it")
        _write(out, text)
    if as_json:
        print_json({"trial": best.as_json(), "recipe": exported.as_json(), "file": str(out) if out else None})
    elif out is None:
        sys.stdout.write(text)
    else:
        print_rich(f"trial {best.number}: {out}; run it with: phonefit run {out}")


def _write(path: Path, text: str) -> None:
    from phonefit.pipeline.store import explain_disk_errors, write_atomically

    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
