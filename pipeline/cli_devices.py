"""The commands that measure: bench, compare, devices."""

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
    with terminal_progress().stage(f"measure {file.name} on {device}"):
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


@app.command(epilog="Example: phonefit devices")
def devices(as_json: JsonOption = False) -> None:
    """List this machine, the emulators and the phones that adb reaches, and whether they can be measured on now."""
    from phonefit.device_bench.devices import list_devices
    from phonefit.pipeline.tables import devices_table

    found = list_devices()
    if as_json:
        print_json([line.as_json() for line in found])
    else:
        print_rich(devices_table(found))
