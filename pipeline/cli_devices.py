"""The commands that measure: bench, compare, calibrate, devices."""

from pathlib import Path
from typing import Annotated

import typer

from phonefit.pipeline.cli_common import JsonOption, print_json, print_rich, terminal_progress

app = typer.Typer()


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
    energy: Annotated[
        bool, typer.Option("--energy", help="Energy of an inference, on a phone without a cable: see docs/energy.md.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the report with all raw samples to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any model file: latency, load time, peak memory, and whether the figures can be trusted."""
    from phonefit.device_bench.bench import bench as bench_file
    from phonefit.device_bench.sustained import run_seconds
    from phonefit.device_bench.sustained import sustained as sustained_figures
    from phonefit.pipeline.budget import parse_bytes
    from phonefit.pipeline.errors import BudgetError
    from phonefit.pipeline.tables import report_table, sustained_table

    if (other is not None) != interleave:
        raise typer.BadParameter("--interleave goes with two files, and two files with --interleave")
    if energy and other is not None:
        raise typer.BadParameter("--energy measures one file: its baseline and run are longer than a round in turn")
    if other is not None:
        _interleave(file, other, device, threads, warmups, repeats, as_json)
        return
    if sustained:
        seconds = run_seconds(sustained)
    with terminal_progress().stage(f"measure {file.name} on {device}"):
        report = bench_file(
            file,
            device=device,
            threads=threads,
            warmups=warmups,
            repeats=repeats,
            duration_seconds=seconds,
            memory_limit_bytes=parse_bytes(memory_limit) if memory_limit else None,
            attempts=1 if sustained else 2,  # a device that slows down is what a long run looks for
            energy=energy,
        )
    if save:
        from phonefit.pipeline.store import write_result

        write_result(save, report)
    if as_json:
        print_json(report.as_json())
    else:
        print_rich(report_table(report))
        if sustained and not report.out_of_memory:
            print_rich(sustained_table(sustained_figures(report.figures["latency"].samples)))
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
        with terminal_progress().stage(
            f"measure {first.name} and {second.name} in turn on {device}", 2 * rounds
        ) as advance:
            result = interleave(
                first, second, target, threads=threads, warmups=warmups, repeats=repeats, rounds=rounds, advance=advance
            )
    finally:
        target.cleanup()
    if as_json:
        print_json(result.as_json())
    else:
        print_rich(interleaved_table(result))


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
        print_json(comparison.as_json())
    else:
        print_rich(comparison_table(comparison, (first.stem, second.stem)))


@app.command(epilog="Example: phonefit calibrate --name my-pixel a.json b.json c.json d.json --models runs/demo/files")
def calibrate(
    reports: Annotated[
        list[Path], typer.Argument(metavar="REPORT...", help="Reports of one phone: `phonefit bench --save`, 1 thread.")
    ],
    name: Annotated[str, typer.Option(help="Of the fitted core; one of that name is replaced.")],
    core: Annotated[str, typer.Option(help="The phone's core, the nearest one there is.")] = "cortex-a76",
    models: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with the measured model files; those beside the reports are found without. Repeat."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="File for the fitted core; default: NAME.json in PHONEFIT_CORES or ~/.config/phonefit/cores."
        ),
    ] = None,
    allow_untrusted: Annotated[
        bool, typer.Option("--allow-untrusted", help="Take reports that are not to be trusted, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the estimated times of emulator:counts to a phone: emulator:counts:core=NAME estimates with the fit."""
    from phonefit.device_bench.emulator import calibration
    from phonefit.device_bench.emulator.latency_model import core_named
    from phonefit.device_bench.report import Report
    from phonefit.pipeline.store import write_result
    from phonefit.pipeline.tables_devices import calibration_table

    calibration.check_name(name)
    core_named(core)
    if save is not None and save.suffix != calibration.SUFFIX:
        raise typer.BadParameter(f"--save {save}: the name of a fitted core's file ends in {calibration.SUFFIX}")
    measured = {path: Report.load(path) for path in reports}
    calibration.check_reports(measured, allow_untrusted)
    files = calibration.find_models(measured, models or [])
    with terminal_progress().stage(f"count {len(files)} models on {core}", len(files)) as advance:
        fitted = calibration.calibrate(name, measured, files, core=core, advance=advance)
    target = save or calibration.cores_folder() / f"{name}{calibration.SUFFIX}"
    write_result(target, fitted)
    if as_json:
        print_json({**fitted.as_json(), "file": str(target)})
    else:
        print_rich(calibration_table(fitted, target))


@app.command(epilog="Example: phonefit devices")
def devices(as_json: JsonOption = False) -> None:
    """List this machine, the emulators and the phones that adb reaches, and whether they can be measured on now."""
    from phonefit.device_bench.devices import list_devices
    from phonefit.pipeline.tables import devices_table

    found = list_devices()
    if as_json:
        print_json([{**line.as_json(), "trusted": line.trusted} for line in found])
    else:
        print_rich(devices_table(found))
