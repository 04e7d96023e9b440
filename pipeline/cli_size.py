"""The commands of the size gate: size measure, check, bless, history, why."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phonefit.pipeline.cli_common import JsonOption, RunsOption, print_json, print_rich, terminal_progress

if TYPE_CHECKING:
    from phonefit.pipeline.size.check import CheckOptions

app = typer.Typer(
    help="Measure files, hold them against a baseline, explain growth: docs/size-gate.md.",
    epilog="Exit codes: 0 in order, 1 a limit is missed, 2 wrong use, 3 something could not be measured, 4 a warning "
    "and --strict",
    no_args_is_help=True,
)
SubjectsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE_OR_FILE]...", help="Recipes or model files; default: those that the baseline names."
    ),
]
BaselineOption = Annotated[Path, typer.Option("--baseline", help="The blessed sizes and the limits.")]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="MEASURE",
        help="delegated, partitions, instructions, bytes_moved or peak_memory, beside bytes; repeatable.",
    ),
]
HistoryOption = Annotated[
    Path | None,
    typer.Option("--history", help="The history; default: the file beside the baseline, sizes.history.jsonl."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(help="Period of creep: a date, 30d, 8w, a tag, a number of entries; default: the baseline's."),
]


@app.command(epilog="Example: phonefit size measure runs/demo/files/compressed-int8.tflite --with delegated")
def measure(
    subjects: Annotated[
        list[str], typer.Argument(metavar="RECIPE_OR_FILE...", help="Recipes (run as by `phonefit run`) or files.")
    ],
    measures: WithOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Sizes by section, without a baseline; exit 3 when something cannot be measured."""
    from phonefit.pipeline.size.measured import check_measures, measure_all
    from phonefit.pipeline.size.sources import Broken, read_subjects
    from phonefit.pipeline.tables_size import measured_table

    wanted = check_measures(measures or [])
    items = list(measure_all(read_subjects(subjects), lambda name: wanted, runs, terminal_progress()))
    if as_json:
        print_json(
            [
                {"name": item.name, "subject": item.subject, "error": item.error}
                if isinstance(item, Broken)
                else {**item.as_json(), "sections": item.anatomy.sections()}
                for item in items
            ]
        )
    else:
        print_rich(measured_table(items))
    if any(isinstance(item, Broken) for item in items):
        raise typer.Exit(3)


@app.command(epilog="Example: phonefit size check --strict --markdown size.md --junit size.xml")
def check(
    subjects: SubjectsArgument = None,
    baseline: BaselineOption = Path("sizes.toml"),
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 when there is a warning.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown to this file.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append the Markdown report to this file, such as $GITHUB_STEP_SUMMARY.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the report as JUnit XML to this file.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Append what was measured to the history.")] = False,
    since: SinceOption = None,
    history: HistoryOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Hold recipes or files against the baseline; the report says what to look at and how to accept it."""
    from phonefit.pipeline.size import check as gate
    from phonefit.pipeline.size import report as reports
    from phonefit.pipeline.tables_size import gate_table

    report = gate.check(subjects or [], _options(baseline, runs, since, record, history), terminal_progress())
    where = (baseline.as_posix(), runs.as_posix())
    text = reports.markdown(report, *where)
    if markdown:
        _write(markdown, text)
    if summary:
        _append(summary, text)
    if junit:
        _write(junit, reports.junit(report, *where, strict))
    if as_json:
        print_json({**report.as_json(), "exit_code": report.exit_code(strict)})
    else:
        whys = [reports.why_command(item, *where) for item in report.results if reports.explainable(item)]
        print_rich(gate_table(report, reports.bless_command(report, *where), whys))
    if code := report.exit_code(strict):
        raise typer.Exit(code)


@app.command(epilog='Example: phonefit size bless app/model.tflite --reason "a second head for night pictures"')
def bless(
    reason: Annotated[str, typer.Option("--reason", help="Why the new sizes are right; kept in the baseline.")],
    subjects: SubjectsArgument = None,
    baseline: BaselineOption = Path("sizes.toml"),
    measures: WithOption = None,
    history: HistoryOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Accept the present sizes as the baseline, which is made if missing; shows what it accepts."""
    from phonefit.pipeline.size.bless import bless as accept
    from phonefit.pipeline.size.measured import check_measures
    from phonefit.pipeline.tables_size import gate_table

    options = _options(baseline, runs, None, True, history)
    report, written = accept(subjects or [], reason, check_measures(measures or []), options, terminal_progress())
    if as_json:
        print_json({**report.as_json(), "blessed": list(written)})
        return
    print_rich(gate_table(report, "", []))
    print_rich(f"blessed in {baseline}: {', '.join(written)}" if written else f"{baseline} holds these sizes already")


@app.command(epilog="Example: phonefit size history --since 90d --plot sizes.html")
def history(
    name: Annotated[str | None, typer.Argument(help="One artifact; default: all.")] = None,
    since: SinceOption = None,
    measure_name: Annotated[str, typer.Option("--measure", help="bytes, section:weights, instructions …")] = "bytes",
    plot: Annotated[Path | None, typer.Option(help="Draw the trend: FILE.html, a page, or FILE.png.")] = None,
    baseline: BaselineOption = Path("sizes.toml"),
    history_file: HistoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the history beside the baseline; with a period, exit 1 when an artifact crept up too much."""
    from phonefit.pipeline.errors import GateError, UnknownNameError
    from phonefit.pipeline.size.baseline import load_baseline
    from phonefit.pipeline.size.history import creeps, history_path, load_history, parse_since
    from phonefit.pipeline.size.limits import measure_named
    from phonefit.pipeline.size.repository import tag_day
    from phonefit.pipeline.size.trend import write_trend
    from phonefit.pipeline.tables_size import history_table

    measure_named(measure_name)
    place = history_file or history_path(baseline)
    found, every = load_baseline(baseline), load_history(place)
    lines = [line for line in every if name in (None, line.name)]
    if name is not None and not lines:
        raise UnknownNameError(f"artifact of {place}", name, {line.name for line in every})
    period = parse_since(since or found.since, _now().date(), tag_day)
    crept = creeps(lines, measure_name, period, found.limits)
    if plot:
        with terminal_progress().stage(f"draw {plot}"):
            write_trend(plot, lines, measure_name)
    if as_json:
        print_json({"lines": [line.as_json() for line in lines], "creep": [item.as_json() for item in crept]})
    else:
        print_rich(history_table(lines[-40:], measure_name, crept))
    texts = [item.text for item in crept if item.exceeded]
    if texts and period is not None:
        raise GateError("crept up:\n  " + "\n  ".join(texts) + f"\nraise creep in {baseline} if this is right")


@app.command(epilog="Example: phonefit size why before.tflite after.tflite")
def why(
    first: Annotated[str, typer.Argument(metavar="OLD|NAME", help="A file; or, alone, an artifact of the baseline.")],
    second: Annotated[Path | None, typer.Argument(metavar="[NEW]", help="The file to compare OLD with.")] = None,
    baseline: BaselineOption = Path("sizes.toml"),
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Explain growth: which tensors, operators and names changed, between two files or since the last bless."""
    from phonefit.pipeline.size.explain import explain_artifact, explain_files
    from phonefit.pipeline.tables_size import explanation_table

    progress = terminal_progress()
    if second is None:
        found = explain_artifact(first, baseline, runs, progress)
    else:
        found = explain_files(Path(first), second, runs, progress)
    if as_json:
        print_json(found.as_json())
    else:
        print_rich(explanation_table(found))


def _options(baseline: Path, runs: Path, since: str | None, record: bool, history: Path | None) -> "CheckOptions":
    from phonefit.pipeline.size.check import CheckOptions
    from phonefit.pipeline.size.repository import commit_id

    return CheckOptions(baseline, runs, _now(), since, record, commit_id() if record else "", history)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _write(path: Path, text: str) -> None:
    from phonefit.pipeline.store import explain_disk_errors, write_atomically

    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def _append(path: Path, text: str) -> None:
    from phonefit.pipeline.store import explain_disk_errors

    with explain_disk_errors(path.parent), path.open("a", encoding="utf-8") as stream:
        stream.write(text)
