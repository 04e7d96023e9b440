"""ShellDevice: a native runner on whatever adb reaches, and everything undone afterwards.

A phone and the emulated phone differ in what they are and what they enforce; how a model gets there and is run is here.
"""

import logging
import posixpath
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from phonefit.device_bench.adb import Adb
from phonefit.device_bench.adb_errors import ConnectionLostError
from phonefit.device_bench.device import DeviceError, Job, MeasurementError
from phonefit.device_bench.inputs import save_outputs
from phonefit.device_bench.journal import Change, Journal, read_or_set_aside
from phonefit.device_bench.native_runner import (
    RunnerResult,
    command,
    describe_command,
    failure,
    input_bytes,
    parse_result,
    read_outputs,
)
from phonefit.models.artifact import SUFFIXES
from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen, file_digest

FOLDER = "/data/local/tmp/phonefit"
_NOT_RUNNABLE, _NOT_FOUND, _SIGNAL = 126, 127, 128
# How long a device that went away is given to come back, so that a restart can be told from a pulled cable.
_RETURN_SECONDS = 15.0
_log = logging.getLogger(__name__)

# Makes the command line that is really run: under a memory limit, for example.
Wrap = Callable[[Sequence[str]], list[str]]


class Execution(Frozen):
    """How a run of a runner on the device ended. `result` is there when the exit status is 0."""

    exit_code: int
    stdout: str
    stderr: str
    result: RunnerResult | None


class ShellDevice:
    """A device's shell and one folder on it. Use as: start, install, execute as often as wanted, finish in any case.

    Args:
        adb: the device.
        journal: of this device: what was changed and is not undone yet.
        folder: made by `start`, emptied of what was put there and removed by `finish`.
        return_seconds: how long a device that went away is given to come back before it counts as gone.
    """

    def __init__(
        self, adb: Adb, journal: Journal, folder: str = FOLDER, return_seconds: float = _RETURN_SECONDS
    ) -> None:
        self.adb, self.folder = adb, folder
        self._journal = journal
        self._return_seconds = return_seconds
        self._boot_id = ""
        self._runs = 0

    def start(self) -> None:
        """Undo what an interrupted process left behind, and make the folder.

        Raises:
            DeviceError: the device cannot be used.
        """
        complaint = read_or_set_aside(self._journal)
        if complaint:
            _log.warning("%s", complaint)
        self._journal.undo_all(self._undo)
        self._boot_id = self._read_boot_id()
        self.make_folders([self.folder])

    def change(self, what: str, do: Sequence[str], undo: Sequence[str]) -> bool:
        """Change something for as long as this device is in use; False when the device refused it."""
        self.undo_later(what, undo)
        return self.adb.shell(do).exit_code == 0

    def undo_later(self, what: str, undo: Sequence[str]) -> None:
        """Note what `finish` is to undo, before it comes into being."""
        self._journal.add(Change(what=what, undo=tuple(undo)))

    def claim(self, *paths: str) -> None:
        """Files that are about to come into being on the device: `finish` removes them. Not for what others own."""
        for path in paths:
            self._note_file(path)

    def install(self, runner: Path) -> str:
        """Copy a runner's self-contained folder (bin/, lib/) to the device, and return its place there.

        Raises:
            DeviceError, MeasurementError: as `Adb.push_all`.
        """
        target = posixpath.join(self.folder, runner.name)
        files = {posixpath.join(target, path.relative_to(runner).as_posix()): path for path in _files_below(runner)}
        self.make_folders(sorted({target, *(posixpath.dirname(name) for name in files)}))
        programs = {name: path for name, path in files.items() if path.parent.name == "bin"}
        self.put({name: path for name, path in files.items() if name not in programs})
        self.put(programs, executable=True)
        return target

    def execute(self, job: Job, program: str, wrap: Wrap | None = None, *, reference: int = 0) -> Execution:
        """Run a job in a fresh process on the device; outputs go to the job's output file.

        Args:
            program: path of the runner on the device.
            wrap: of the command line, from the outside; None runs it as it is.
            reference: how often the reference loop is timed before and after.

        Raises:
            DeviceError: the device refused something, or the input does not fit the model.
            MeasurementError: it took too long, or the device went away.
        """
        model = posixpath.join(self.folder, file_digest(job.model)[:16] + SUFFIXES[job.runtime])
        try:
            self.put({model: job.model})
            inputs, outputs = self._prepare_data(job, program, model)
            result_file = self._result_file(outputs)
            line = command(
                program, job, model=model, result=result_file, inputs=inputs, outputs=outputs, reference=reference
            )
            if job.cpu_mask is not None:
                line = ["taskset", f"{job.cpu_mask:x}", *line]
            execution = self._run(line if wrap is None else wrap(line), result_file, job.timeout_seconds)
            if execution.result is not None and job.output_file is not None:
                self._fetch_outputs(execution.result, outputs, job.output_file)
        except ConnectionLostError as error:
            raise self._gone(error) from None
        return execution

    def finish(self) -> None:
        """Undo everything. A device that is not there keeps its journal: the next `start` undoes it."""
        try:
            self._journal.undo_all(self._undo)
        except (DeviceError, FileFormatError) as error:
            _log.warning("%s keeps %s until it is used again: %s", self.adb.serial, self._left(), error)

    def _left(self) -> str:
        try:
            changes = self._journal.changes()
        except FileFormatError:
            return "what cannot be read from its journal"
        files = [change.what for change in changes if change.what.startswith(("file ", "folder "))]
        others = [change.what for change in changes if change.what not in files]
        return ", ".join([*others, f"{len(files)} files and folders"])

    def _prepare_data(self, job: Job, program: str, model: str) -> tuple[list[str], list[str]]:
        """Inputs on the device and where outputs will be; a run without inferences tells what the model takes."""
        if job.input_file is None and job.output_file is None:
            return [], []
        result_file = self._result_file([])
        look = self._run(describe_command(program, model=model, result=result_file), result_file, job.timeout_seconds)
        result = require_result(job, look)
        with tempfile.TemporaryDirectory(prefix="phonefit-input-") as name:
            raw = [Path(name) / f"input_{index}.bin" for index in range(len(result.inputs))]
            for path, data in zip(raw, input_bytes(result, job), strict=True):
                path.write_bytes(data)
            inputs = [posixpath.join(self.folder, path.name) for path in raw]
            self.put(dict(zip(inputs, raw, strict=True)))
        wanted = len(result.outputs) if job.output_file is not None else 0
        return inputs, [posixpath.join(self.folder, f"output_{index}.bin") for index in range(wanted)]

    def _result_file(self, outputs: Sequence[str]) -> str:
        """A name of its own each time: no result of an earlier run can be taken for this one's."""
        self._runs += 1
        result_file = posixpath.join(self.folder, f"result_{self._runs}.json")
        for path in (result_file, *outputs):
            self._note_file(path)
            # what the runner writes before it renames
            self._note_file(f"{path}.tmp")
        return result_file

    def _run(self, line: Sequence[str], result_file: str, timeout_seconds: float) -> Execution:
        ended = self.adb.shell(line, timeout_seconds=timeout_seconds)
        found = self.adb.shell(["cat", result_file]) if ended.exit_code == 0 else None
        result = parse_result(found.stdout) if found is not None and found.exit_code == 0 else None
        return Execution(exit_code=ended.exit_code, stdout=ended.stdout, stderr=ended.stderr, result=result)

    def _fetch_outputs(self, result: RunnerResult, outputs: Sequence[str], target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="phonefit-output-") as name:
            files = [Path(name) / posixpath.basename(path) for path in outputs]
            for path, file in zip(outputs, files, strict=True):
                self.adb.pull(path, file)
            arrays = read_outputs(result, files)
        save_outputs(arrays, target)

    def make_folders(self, folders: Sequence[str]) -> None:
        """Make folders, with those above them; `finish` removes them where they are empty then."""
        for folder in folders:
            # not -r: what somebody else put there is not ours
            self.undo_later(f"folder {folder}", ["rmdir", folder])
        self.adb.shell(["mkdir", "-p", *folders], check=True)

    def put(self, files: Mapping[str, Path], *, executable: bool = False) -> None:
        """Copy files to the device as `Adb.push_all` does; `finish` removes them."""
        for target in files:
            self._note_file(target)
        self.adb.push_all(files, executable=executable)

    def _note_file(self, path: str) -> None:
        self.undo_later(f"file {path}", ["rm", "-f", path])

    def _undo(self, change: Change) -> None:
        result = self.adb.shell(change.undo)
        if result.exit_code != 0 and change.undo[0] != "rmdir":
            _log.warning("%s: could not be undone: %s", change.what, result.stderr.strip() or result.stdout.strip())

    def _read_boot_id(self) -> str:
        return self.adb.shell(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()

    def _gone(self, error: ConnectionLostError) -> ConnectionLostError:
        if not self.adb.wait_until_usable(self._return_seconds):
            return error
        try:
            restarted = self._read_boot_id() != self._boot_id
        except DeviceError:
            return error
        if restarted:
            return ConnectionLostError(
                f"{self.adb.serial} restarted during the measurement: it may have run out of memory or become too hot; "
                f"let it rest and run the same command again ({error})"
            )
        return error


def require_result(job: Job, execution: Execution) -> RunnerResult:
    """The result of a run that must have one.

    Raises:
        FileFormatError: the runner says that the file is no model of its runtime.
        DeviceError: the runner cannot be run on this device.
        MeasurementError: it failed, was killed, or left no usable result.
    """
    if execution.result is not None:
        return execution.result
    said = execution.stderr.strip() or execution.stdout.strip()
    words = f"; its last words:\n{said[-2000:]}" if said else ""
    code, who = execution.exit_code, f"{job.model.name}: {job.runtime}"
    if code in (_NOT_RUNNABLE, _NOT_FOUND):
        raise DeviceError(f"{who}: the runner cannot be run on this device (exit status {code}){words}")
    if code > _SIGNAL:
        raise MeasurementError(f"{who} was killed by {_signal_name(code - _SIGNAL)} on the device{_hint(code)}{words}")
    if code != 0:
        raise failure(job, code, execution.stderr)
    raise MeasurementError(f"{who} ended well but left no result on the device{words}; run the same command again")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _hint(code: int) -> str:
    if code == _SIGNAL + signal.SIGKILL:
        return ", as a system does that runs out of memory: close apps, or try a smaller model"
    return "; the file may be damaged or made for another version of the runtime"


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
