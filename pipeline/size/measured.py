"""Measures files for the gate. Each figure is kept in the store under the file's digest: nothing is measured twice."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phonefit.device_bench.device import DeviceError, MeasurementError
from phonefit.models.artifact import Delegation
from phonefit.models.errors import first_line
from phonefit.models.record import Frozen, Record, file_digest
from phonefit.pipeline.context import Progress
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.size.anatomy import anatomy
from phonefit.pipeline.size.limits import MEASURES, SECTION, measure_named
from phonefit.pipeline.size.parts import Anatomy, BrokenFileError
from phonefit.pipeline.size.sources import Broken, Source, Subject, runtime_of_name, sources_of
from phonefit.pipeline.store import Store

CODE_VERSION = 1
"""Raised when `anatomy` tells something else about the same file."""
DELEGATION_CODE_VERSION = 1
COUNTS_CODE_VERSION = 1
COUNTING_DEVICE = "emulator:counts"
ANATOMY_FILE, COPY = "anatomy.json", "file"
LOG = "size.log"


class Measured(Frozen):
    """One file with its figures.

    Attributes:
        path: of the file itself; a copy is in the store.
        measures: figures beside bytes and sections: measure -> value.
    """

    name: str
    subject: str
    path: str
    precision: str
    tools: Mapping[str, str]
    checkpoint: str
    anatomy: Anatomy
    measures: Mapping[str, float] = {}

    def figure(self, measure: str) -> float | None:
        """A figure by its name; None where it was not measured. A section that the file lacks has 0 bytes."""
        if measure == "bytes":
            return float(self.anatomy.bytes)
        if measure.startswith(SECTION):
            return float(self.anatomy.sections().get(measure.removeprefix(SECTION), 0))
        return self.measures.get(measure)


class FigureRecord(Record):
    """Content of the store's results: figures by name."""

    schema_number: int = 1
    figures: Mapping[str, float]


def measure_all(
    subjects: Sequence[Subject], wanted: Callable[[str], Sequence[str]], runs: Path, progress: Progress
) -> Iterator[Measured | Broken]:
    """Every file of every subject; what cannot be measured is told as `Broken` and the rest goes on.

    Args:
        wanted: from the name of an artifact to its measures beside bytes.
    """
    with progress.stage("measure sizes", len(subjects)) as advance:
        for subject in subjects:
            try:
                for source in sources_of(subject, runs, progress):
                    yield _measured(source, wanted(source.name), Store(runs), progress)
            except PhonefitError as error:
                yield Broken(subject.text, subject.text, str(error))
            advance(note=subject.text)


def _measured(source: Source, wanted: Sequence[str], store: Store, progress: Progress) -> Measured | Broken:
    try:
        found = measured_anatomy(source.path, store, progress)
        figures: dict[str, float] = {}
        for kind, figures_of in (("delegation", _delegation), ("counts", _counts)):
            names = [name for name in wanted if measure_named(name).source == kind]
            if names:
                every = figures_of(source.path, found.sha256, store, progress)
                figures |= {name: every[name] for name in names if name in every}
    except PhonefitError as error:
        return Broken(source.name, source.subject, str(error))
    described = source.described_sha256 == found.sha256  # not by the description of an earlier file of that name
    return Measured(
        name=source.name,
        subject=source.subject,
        path=source.path.as_posix(),
        precision=source.precision if described else "",
        tools=source.tools if described else {},
        checkpoint=source.checkpoint,
        anatomy=found,
        measures=figures,
    )


def measured_anatomy(path: Path, store: Store, progress: Progress) -> Anatomy:
    """What a file is made of; with it a copy of the file goes into the store, for `why` and comparisons later.

    Raises:
        BrokenFileError: the file is damaged, or changes while it is read.
    """
    try:
        digest = file_digest(path)
    except OSError as error:
        raise BrokenFileError(path, 0, f"cannot be read ({error.strerror})") from None

    def build(folder: Path) -> None:
        with progress.stage(f"take {path.name} apart"):
            found = anatomy(path)
            shutil.copyfile(path, folder / f"{COPY}{path.suffix}")
            if {found.sha256, file_digest(folder / f"{COPY}{path.suffix}")} != {digest}:
                raise BrokenFileError(path, 0, "it changed while it was read")
            found.save(folder / ANATOMY_FILE)

    result = store.compute("size", {"file": digest}, {"suffix": path.suffix}, CODE_VERSION, build)
    return Anatomy.load(result.path / ANATOMY_FILE)


def kept_copy(sha256: str, suffix: str, store: Store) -> Path | None:
    """The store's copy of a file that was measured before; None where there is none."""
    key = store.key("size", {"file": sha256}, {"suffix": suffix}, CODE_VERSION)
    path = store.root / "store" / "size" / key / f"{COPY}{suffix}"
    return path if path.is_file() else None


def _delegation(path: Path, sha256: str, store: Store, progress: Progress) -> dict[str, float]:
    from phonefit.device_bench.runtimes import runtime_module
    from phonefit.pipeline.convert.delegation import delegation_of

    runtime = runtime_of_name(path.name)
    if runtime is None:
        raise MeasurementError(
            f"{path}: delegation is counted in .pte, .tflite and .onnx files only; take it out of limits"
        )

    def build(folder: Path) -> None:
        with progress.stage(f"count what {path.name} delegates"):
            found = _said_by_library(path, lambda: delegation_of(path, runtime), store.root / LOG)
        figures = {"partitions": float(found.partitions)}
        if found.share is not None:
            figures["delegated"] = found.share
        FigureRecord(figures=figures).save(folder / "figures.json")

    tools = runtime_module(runtime).versions()
    result = store.compute(
        "size-delegation", {"file": sha256}, {"runtime": runtime}, DELEGATION_CODE_VERSION, build, tools
    )
    return dict(FigureRecord.load(result.path / "figures.json").figures)


def _said_by_library(path: Path, ask: Callable[[], Delegation], log: Path) -> Delegation:
    """What a library tells about a file; what it prints goes to the log, and any failure is a broken measurement."""
    with captured_output(log, f"delegation of {path}"):
        try:
            return ask()
        except PhonefitError:
            raise
        except Exception as error:  # libraries raise whatever their parts raise
            raise MeasurementError(
                f"{path}: its delegation cannot be counted: {first_line(error)}; the whole output is in {log}. "
                "Convert the file again, or leave delegated and partitions out"
            ) from error


def _counts(path: Path, sha256: str, store: Store, progress: Progress) -> dict[str, float]:
    from phonefit.device_bench.bench import bench
    from phonefit.device_bench.devices import open_device

    device = open_device(COUNTING_DEVICE)
    identity: dict[str, JsonValue] = {"device_info": device.info().as_json()}

    def build(folder: Path) -> None:
        with progress.stage(f"count {path.name} on {COUNTING_DEVICE}"):
            report = bench(path, device=COUNTING_DEVICE, warmups=1, repeats=1, attempts=1)
        counted = {name: figure.samples[-1] for name, figure in report.figures.items() if figure.samples}
        figures = {
            "instructions": counted["instructions"],
            "bytes_moved": counted["read_bytes"] + counted["written_bytes"],
            "peak_memory": report.peak_memory_bytes(),
        }
        FigureRecord(figures=figures).save(folder / "figures.json")

    result = store.compute("size-counts", {"file": sha256}, identity, COUNTS_CODE_VERSION, build)
    return dict(FigureRecord.load(result.path / "figures.json").figures)


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Names of measures that a command was given, without those that every file has anyway.

    Raises:
        UnknownNameError: there is no such measure.
        DeviceError: it is not a figure of one file.
    """
    for name in names:
        if measure_named(name).source == "clock":
            raise DeviceError(
                f"{name} does not repeat exactly, so no figure of it is kept; name it in a [[limits]] table: `check` "
                "then measures the blessed file and the present one in turn"
            )
    return tuple(name for name in names if name in MEASURES and MEASURES[name].source != "file")
