"""The app and a run's models to a phone, and away again. Each is safe to repeat, also after it was killed.

What stays on the phone is the app and the folder of its models; all else that is put there for a moment is noted in the
device's journal first, which the next command works off.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from phonefit.device_bench.adb import Adb, same_content
from phonefit.device_bench.adb_server import AdbServer
from phonefit.device_bench.android import read_info
from phonefit.device_bench.app_device import difference
from phonefit.device_bench.app_files import pack
from phonefit.device_bench.app_install import grant_camera, install, uninstall
from phonefit.device_bench.app_job import FOLDER, MODELS, AppResult
from phonefit.device_bench.device import DeviceError, DeviceInfo, Job
from phonefit.device_bench.device_lock import file_of, hold_device
from phonefit.device_bench.journal import Journal
from phonefit.device_bench.parsers import parse_getprop
from phonefit.device_bench.phone_app import PhoneApp
from phonefit.device_bench.shell_device import ShellDevice
from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen
from phonefit.pipeline.context import Progress
from phonefit.pipeline.deploy_apk import Apk
from phonefit.pipeline.deploy_checks import Phone, choose_phone, objections

# For loading a model and one inference, on the slowest phones.
_VERIFY_SECONDS = 120.0

# Model file -> its description.
Files = Mapping[Path, Artifact]


class DeployedModel(Frozen):
    """One model on the phone, and the one inference that verified it.

    Attributes:
        pushed: it was copied now; else it was there.
        load_milliseconds: until it was ready for its first input.
        first_milliseconds: of the inference, which is slower than later ones.
        max_difference: of its outputs on the phone from this machine's, as a share of their range.
        problem: how they differ too much; "" when they do not.
    """

    name: str
    runtime: Runtime
    bytes: int
    pushed: bool
    load_milliseconds: float
    first_milliseconds: float
    max_difference: float
    problem: str = ""


class Deployment(Frozen):
    """What `deploy` did.

    Attributes:
        app: how the app came to the phone, in words.
        app_version, runtimes: as the app on the phone says.
        remarks: what a person should know: a permission that was not granted, models that were removed.
    """

    serial: str
    device: DeviceInfo
    app: str
    app_version: str
    runtimes: Mapping[Runtime, str]
    models: tuple[DeployedModel, ...]
    remarks: tuple[str, ...] = ()


class Removal(Frozen):
    """What `undeploy` did. `models`: the files that were on the phone."""

    serial: str
    app_was_there: bool
    models: tuple[str, ...]


def find_models(run: str, runs: Path, runtimes: Sequence[str] = ()) -> Files:
    """The converted files of a run: of its name in the runs folder, or of any folder that holds them.

    Args:
        runtimes: only these; empty is all.

    Raises:
        FileFormatError: there are none, or one was changed since it was converted.
    """
    places = [runs / run / "files", Path(run) / "files", Path(run)]
    wanted = [suffix for runtime, suffix in SUFFIXES.items() if not runtimes or runtime in runtimes]
    for place in places:
        found = sorted(path for suffix in wanted for path in place.glob(f"*{suffix}.json"))
        if found:
            return {model: artifact for artifact, model in map(load_artifact, found)}
    raise FileFormatError(
        f"{run}: no converted files ({', '.join(wanted)}) in {', '.join(map(str, places))}; make some: "
        "phonefit run RECIPE, then name the recipe"
    )


def deploy(
    files: Files,
    apk: Apk,
    *,
    serial: str | None,
    replace: bool,
    progress: Progress,
    server: AdbServer | None = None,
    state: Path | None = None,
) -> Deployment:
    """Put the app and the models on a phone, run each model once there, and open the app.

    A model that computes something else than here is a `problem` of the result, not an error.

    Args:
        serial: of the phone; None is the only one attached.
        replace: uninstall an app that stands in the way; what it stored is lost.
        server, state: as of `AndroidDevice`.

    Raises:
        DeviceError: there is no such phone, it is not fit for the app or a model, or refuses it.
        MeasurementError: a model does not run there, or the phone went away.
    """
    with _taken(serial, server, state) as shell:
        adb, app = shell.adb, PhoneApp(shell)
        info, targets, installed = read_info(adb), _targets(files), app.installed()
        present = adb.digests([*targets, *([installed] if installed else [])])
        missing = {path: file for path, file in targets.items() if not same_content(file, present.get(path))}
        is_new = installed is None or not same_content(apk.path, present.get(installed))
        found = objections(
            _phone(adb, info), apk, list(files.values()), sum(file.stat().st_size for file in missing.values()), is_new
        )
        if found:
            raise DeviceError(f"{info.name} cannot take this:\n" + "\n".join(f"  · {one}" for one in found))
        how = "was there"
        if is_new:
            with progress.stage(f"install the app on {info.name}"):
                how = install(shell, apk.path, replace=replace)
        remarks = [] if grant_camera(shell) else ["the app will ask for the camera itself: adb may not grant it there"]
        with progress.stage(f"copy {len(missing)} of {len(targets)} files to {info.name}"):
            if removed := _push(app, adb, targets, missing):
                remarks.append(f"removed from the phone: {', '.join(removed)}")
        results: dict[Path, AppResult] = {}
        with progress.stage(f"run each model once on {info.name}", len(files)) as advance:
            for model, artifact in files.items():
                results[model] = _run_once(app, model, artifact)
                advance(note=model.name)
    # opened after what is undone has been undone, which ends the app
    app.show()
    last = list(results.values())[-1]
    return Deployment(
        serial=adb.serial,
        device=info,
        app=how,
        app_version=last.app_version,
        runtimes=last.runtimes,
        models=tuple(
            _deployed(path, files[path], result, pushed=_target(path) in missing) for path, result in results.items()
        ),
        remarks=tuple(remarks),
    )


def undeploy(serial: str | None, server: AdbServer | None = None, state: Path | None = None) -> Removal:
    """Remove the app, what it stored, the models and whatever a killed command left; also where only part is there.

    Raises:
        DeviceError: there is no such phone, or it refuses.
    """
    with _taken(serial, server, state) as shell:
        adb = shell.adb
        there = PhoneApp(shell).installed() is not None
        models = _listed(adb)
        if there:
            uninstall(shell)
        # the folder holds nothing but what phonefit put there
        adb.shell(["rm", "-rf", FOLDER], check=True)
    return Removal(serial=adb.serial, app_was_there=there, models=tuple(models))


@contextmanager
def _taken(serial: str | None, server: AdbServer | None, state: Path | None) -> Iterator[ShellDevice]:
    """The phone, for this process alone; what is put there for a moment is removed at the end."""
    server = server or AdbServer()
    adb = Adb(choose_phone(server.devices(), serial), server)
    with hold_device(adb.serial, state):
        shell = ShellDevice(adb, Journal(file_of(adb.serial, ".journal.json", state)))
        shell.start()
        try:
            yield shell
        finally:
            shell.finish()


def _phone(adb: Adb, info: DeviceInfo) -> Phone:
    properties = parse_getprop(adb.shell(["getprop"]).stdout)
    if "sdk" not in info.details:
        raise DeviceError(f"{info.name} ({adb.serial}) runs {info.operating_system}; the app needs an Android phone")
    listed = properties.get("ro.product.cpu.abilist", info.architecture)
    free = adb.free_bytes("/data/local/tmp")
    return Phone(abis=tuple(filter(None, listed.split(","))), sdk=int(info.details["sdk"]), free_bytes=free)


def _target(model: Path) -> str:
    return f"{MODELS}/{model.name}"


def _targets(files: Files) -> dict[str, Path]:
    """Path on the phone -> file here, of the models and their descriptions."""
    every = (path for model in files for path in (model, model.with_name(f"{model.name}.json")))
    return {_target(path): path for path in every}


def _listed(adb: Adb) -> list[str]:
    """Names of the models on the phone."""
    names = adb.shell(["ls", MODELS]).stdout.split("\n")
    return sorted(name for name in names if name.endswith(tuple(SUFFIXES.values())))


def _push(app: PhoneApp, adb: Adb, targets: Mapping[str, Path], missing: Mapping[str, Path]) -> list[str]:
    """Let the models' folder hold exactly these files; returns the models that were removed from it."""
    app.make_folders()
    others = [name for name in _listed(adb) if f"{MODELS}/{name}" not in targets]
    if others:
        adb.shell(["rm", "-f", *(f"{MODELS}/{name}{end}" for name in others for end in ("", ".json"))], check=True)
    adb.push_all(missing)
    app.let_read(targets)
    return others


def _run_once(app: PhoneApp, model: Path, artifact: Artifact) -> AppResult:
    job = Job(model=model, runtime=artifact.runtime, warmups=0, repeats=1)
    with tempfile.TemporaryDirectory(prefix="phonefit-deploy-") as name:
        parcel = pack(job, Path(name), on_phone=_target(model))
        app.put(parcel.files)
    return app.run(parcel.job, _VERIFY_SECONDS)


def _deployed(model: Path, artifact: Artifact, result: AppResult, *, pushed: bool) -> DeployedModel:
    assert result.correctness is not None  # the job expected something
    return DeployedModel(
        name=model.name,
        runtime=artifact.runtime,
        bytes=artifact.bytes,
        pushed=pushed,
        load_milliseconds=(result.load_ns or 0) / 1e6,
        first_milliseconds=result.sample_ns[0] / 1e6,
        max_difference=result.correctness.max_difference,
        problem=difference(result.correctness),
    )
