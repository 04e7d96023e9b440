"""The commands that bring the app and models to a phone, and away again: deploy, undeploy."""

from pathlib import Path
from typing import Annotated

import typer

from phonefit.models.errors import FileFormatError
from phonefit.pipeline.cli_common import JsonOption, RunsOption, print_json, print_rich, terminal_progress

app = typer.Typer()
DeviceOption = Annotated[
    str | None, typer.Option(help="Serial of the phone, from `phonefit devices`; needed when several are attached.")
]


@app.command(epilog="Example: phonefit deploy demo --device 28151FDH2000XY")
def deploy(
    run: Annotated[str, typer.Argument(help="Name of a run, or a folder with converted files.")],
    device: DeviceOption = None,
    apk: Annotated[
        Path | None, typer.Option(help="The app; default: android_demo/, built with Gradle where it is there.")
    ] = None,
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Only files for executorch, tflite or onnx; repeatable.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Uninstall an app that stands in the way; what it stored is lost.")
    ] = False,
    make_run: Annotated[
        bool, typer.Option("--run", help="Run the recipe of that name first, where it has left no files yet.")
    ] = False,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Put the app and a run's models on a phone, and check that each computes there what it computes here."""
    from phonefit.device_bench.adb_server import AdbServer
    from phonefit.models.artifact import SUFFIXES
    from phonefit.models.errors import UnknownNameError
    from phonefit.pipeline.deploy import deploy as deploy_files
    from phonefit.pipeline.deploy import find_models
    from phonefit.pipeline.deploy_apk import find_apk
    from phonefit.pipeline.deploy_checks import choose_phone
    from phonefit.pipeline.errors import ParityError
    from phonefit.pipeline.tables_deploy import deployment_table

    for name in runtime or ():
        if name not in SUFFIXES:
            raise UnknownNameError("runtime", name, SUFFIXES)
    server = AdbServer()
    serial = choose_phone(server.devices(), device)  # before minutes of work for a phone that is not there
    if make_run:
        _run_unless_done(run, runs)
    files = find_models(run, runs, runtime or ())
    with terminal_progress().stage("find or build the app"):
        found = find_apk(apk)
    done = deploy_files(files, found, serial=serial, replace=replace, progress=terminal_progress(), server=server)
    if as_json:
        print_json(done.as_json())
    else:
        print_rich(deployment_table(done))
    wrong = [model.name for model in done.models if model.problem]
    if wrong:
        raise ParityError(
            f"{', '.join(wrong)}: computes something else on {done.device.name} than here; convert with the app's "
            "version of the runtime, or leave such files out: --runtime"
        )


def _run_unless_done(recipe: str, runs: Path) -> None:
    from phonefit.pipeline.deploy import find_models
    from phonefit.pipeline.recipe_file import load_recipe
    from phonefit.pipeline.run import run as run_recipe

    try:
        find_models(recipe, runs)
    except FileFormatError:
        run_recipe(load_recipe(recipe, []), runs=runs, progress=terminal_progress())


@app.command(epilog="Example: phonefit undeploy")
def undeploy(device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Remove the app, its data and all models from a phone; safe to repeat."""
    from phonefit.pipeline.deploy import undeploy as remove
    from phonefit.pipeline.tables_deploy import removal_text

    done = remove(device)
    if as_json:
        print_json(done.as_json())
    else:
        print_rich(removal_text(done))
