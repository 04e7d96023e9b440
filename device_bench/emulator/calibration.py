"""Fitted cores: reports of a phone become coefficients under a name, which `emulator:counts:core=NAME` estimates with.

A record is one JSON file. Those of a person lie in one folder, see `cores_folder`.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from phonefit.device_bench.bench import bench
from phonefit.device_bench.device import Device, DeviceError, DeviceInfo
from phonefit.device_bench.emulator.counting import DEFAULT_CORE, CountingDevice
from phonefit.device_bench.emulator.fit import SMALLEST_FIT, Calibration, fit
from phonefit.device_bench.emulator.latency_model import Core, core_named, cores
from phonefit.device_bench.report import Report
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import UnknownNameError
from phonefit.models.record import Record, digest_of, file_digest

SUFFIX = ".json"
# What a 64-bit Arm processor is called by Linux, macOS and Android.
ARM = ("aarch64", "arm64", "arm64-v8a")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FOLDERS_OPTION = "--models FOLDER"


class FittedCore(Record):
    """A core's coefficients fitted to a device.

    Attributes:
        prior: name in cores.json of the core that was counted on and whose coefficients the fit began with.
        prior_digest: of that core, as counts and the clock follow from it.
        device: what was measured.
        notes: what makes the fit weaker than its error says.
    """

    schema_number: int = 1
    name: str
    prior: str
    prior_digest: str
    device: DeviceInfo
    calibration: Calibration
    notes: tuple[str, ...] = ()

    def core(self) -> Core:
        """The core with the fitted coefficients.

        Raises:
            UnknownNameError: the prior core is not known any more.
            DeviceError: it has other caches, features, clock or coefficients than it was fitted with.
        """
        prior = core_named(self.prior)
        if digest_of(prior.as_json()) != self.prior_digest:
            raise DeviceError(
                f"{self.name} was fitted with another {self.prior} than this version of phonefit counts on; "
                f"fit it anew: phonefit calibrate --name {self.name} --core {self.prior} REPORT.json …"
            )
        return self.calibration.apply(prior, self.device.name)

    def open(self) -> CountingDevice:
        """The counting tier on this core. Its name tells it from the unfitted core and from another fit of that name.

        Raises:
            UnknownNameError, DeviceError: as `core`.
        """
        mark = digest_of(dict(self.calibration.cycles))[:6]
        return CountingDevice(self.prior, model=self.core(), label=f"{self.name} (fitted {self.prior}, {mark})")


def cores_folder() -> Path:
    """Where fitted cores lie: PHONEFIT_CORES, else phonefit/cores in XDG_CONFIG_HOME, else ~/.config/phonefit/cores."""
    named = os.environ.get("PHONEFIT_CORES")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "phonefit" / "cores"


def fitted_cores(folder: Path | None = None) -> dict[str, Path]:
    """Name -> file of the fitted cores of a folder; None is `cores_folder()`. Reads none of them."""
    found = sorted((folder or cores_folder()).glob(f"*{SUFFIX}"))
    return {path.stem: path for path in found if _NAME.fullmatch(path.stem)}


def open_core(name: str) -> CountingDevice:
    """The counting tier on a core: one of cores.json, a fitted one by its name, or the file of a fitted one.

    Raises:
        UnknownNameError: no core of that name.
        FileFormatError: the file is no fitted core.
        DeviceError: the fitted core does not fit this version of phonefit.
    """
    if name.endswith(SUFFIX):
        return FittedCore.load(Path(name)).open()
    if name in cores():
        return CountingDevice(name)
    fitted = fitted_cores()
    if name not in fitted:
        raise UnknownNameError("core", name, [*cores(), *fitted])
    return FittedCore.load(fitted[name]).open()


def check_name(name: str) -> None:
    """Refuse a name that no core can have.

    Raises:
        DeviceError: it is a core of cores.json, or would not do as a file's name.
    """
    if name in cores():
        raise DeviceError(f"{name!r} is the name of an unfitted core; choose another, such as my-{name}")
    if not _NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise DeviceError(f"{name!r} is no name of a core: use letters, digits, '.', '_' and '-', such as my-pixel")


def check_reports(reports: Mapping[Path, Report], allow_untrusted: bool = False) -> None:
    """Refuse reports that no fit can be made to.

    Args:
        reports: by file.
        allow_untrusted: take those whose figures are not to be trusted, too.

    Raises:
        DeviceError: with everything that is wrong, one line for each report.
    """
    problems = [f"{path}: {problem}" for path, report in reports.items() for problem in _problems(report)]
    devices = {(report.device.kind, report.device.name): path for path, report in reports.items()}
    if len(devices) > 1:
        named = ", ".join(f"{name} ({path})" for (_, name), path in devices.items())
        problems.append(f"reports of {len(devices)} devices: {named}; a fit takes reports of one device")
    by_file: dict[str, Path] = {}
    for path, report in reports.items():
        if report.model_sha256 in by_file:
            problems.append(f"{path}: of the same file as {by_file[report.model_sha256]}; give one of the two")
        by_file.setdefault(report.model_sha256, path)
    if not allow_untrusted:
        for path, report in reports.items():
            if not report.trusted:
                reasons = "; ".join(doubt.reason for doubt in report.untrusted)
                problems.append(
                    f"{path}: not to be trusted: {reasons}; measure it again, or take it with --allow-untrusted"
                )
    if len(by_file) < SMALLEST_FIT:
        problems.append(
            f"{len(by_file)} file(s) measured, a fit needs at least {SMALLEST_FIT}; "
            "measure more models, unlike in size and kind"
        )
    if problems:
        raise DeviceError("cannot calibrate:\n" + "\n".join(f"  {problem}" for problem in problems))


def _problems(report: Report) -> Iterator[str]:
    if report.out_of_memory:
        yield "the memory limit ended the process, so there is no latency"
    elif (source := report.figures["latency"].source) != "measured":
        yield f"its latency is {source} on {report.device.name}; a fit takes times measured on a real device"
    if report.device.architecture not in ARM:
        yield f"{report.device.name} is {report.device.architecture}; the counts are of a 64-bit Arm core"
    if (threads := report.settings.get("threads")) != 1:
        yield f"measured with {threads} threads, the model is of one; measure with --threads 1"


def find_models(reports: Mapping[Path, Report], folders: Sequence[Path] = ()) -> dict[Path, Path]:
    """The model file of each report, by its digest: in the report's own folder, or anywhere below `folders`.

    Raises:
        DeviceError: a folder or a model is not there; the message names every one that is missing.
    """
    for folder in folders:
        if not folder.is_dir():
            raise DeviceError(f"{FOLDERS_OPTION}: {folder} is no folder")
    sizes = {report.model_bytes for report in reports.values()}
    beside = {path.parent for path in reports}
    candidates = [file for folder in sorted(beside) for file in sorted(folder.iterdir())]
    candidates += [file for folder in folders for file in sorted(folder.rglob("*"))]
    by_digest: dict[str, Path] = {}
    for file in candidates:
        if file.suffix in SUFFIXES.values() and file.is_file() and file.stat().st_size in sizes:
            by_digest.setdefault(file_digest(file), file)
    lacking = [path for path, report in reports.items() if report.model_sha256 not in by_digest]
    if lacking:
        lines = [f"  {path}: {reports[path].model_name}, sha256 {reports[path].model_sha256[:16]}…" for path in lacking]
        raise DeviceError(
            "the model files of these reports are neither beside them nor below the folders given:\n"
            + "\n".join(lines)
            + f"\nname the folder that holds them: {FOLDERS_OPTION}; a file that was changed since does not count"
        )
    return {path: by_digest[report.model_sha256] for path, report in reports.items()}


def calibrate(
    name: str,
    reports: Mapping[Path, Report],
    models: Mapping[Path, Path],
    *,
    core: str = DEFAULT_CORE,
    device: Device | None = None,
    advance: Callable[[int, str], None] | None = None,
) -> FittedCore:
    """Count each model of the reports, and fit the core's coefficients to the measured latencies.

    Args:
        name: of the fitted core.
        reports: of one device, as `check_reports` passes them.
        models: the model file of each report.
        core: of cores.json; the counts are of it, and the fit begins with its coefficients.
        device: counts the models; None for the counting tier on that core.
        advance: called with 1 and the model's name after each one.

    Raises:
        UnknownNameError: no core of that name.
        DeviceError: the fit cannot be made, or the counting tier is not built.
        MeasurementError: a model could not be counted.
    """
    prior = core_named(core)
    counter = device or CountingDevice(core)
    counted: dict[Path, Report] = {}
    try:
        counter.prepare()
        for path, report in reports.items():
            counted[path] = bench(models[path], device=counter, runtime=report.runtime)
            if advance:
                advance(1, report.model_name)
    finally:
        counter.cleanup()
    return FittedCore(
        name=name,
        prior=core,
        prior_digest=digest_of(prior.as_json()),
        device=next(iter(reports.values())).device,
        calibration=fit(list(reports.values()), list(counted.values()), prior),
        notes=tuple(_notes(reports, counted)),
    )


def _notes(measured: Mapping[Path, Report], counted: Mapping[Path, Report]) -> Iterator[str]:
    for path, report in measured.items():
        for package, version in report.versions.items():
            other = counted[path].versions.get(package, version)
            if other != version:
                yield f"{report.model_name}: measured with {package} {version}, counted with {other}"
        if not report.trusted:
            yield f"{report.model_name}: its measurement is not to be trusted"
