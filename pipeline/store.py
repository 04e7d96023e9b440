"""The run folder: content-addressed stage results, locks, logs.

    RUNS/store/STAGE/KEY/…    one stage result; stage.json is in each
    RUNS/store/tmp/KEY/       being written; taken over by the next holder of the key's lock
    RUNS/store/locks/KEY      flock files: the kernel drops the lock when a process dies
    RUNS/store/resume/KEY     state of a long stage between its steps; deleted when the stage is finished
    RUNS/NAME/                one recipe's run: trial results, files, log, study

A result is written to tmp and renamed, so it is there as a whole or not at all.
"""

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from phonefit.models.errors import FileFormatError
from phonefit.models.record import Record, digest_of, write_atomically
from phonefit.pipeline.errors import StoreError
from phonefit.pipeline.folders import held, sync_files

STAGE_FILE = "stage.json"
logger = logging.getLogger(__name__)


class StageInfo(Record):
    """Content of stage.json.

    Attributes:
        inputs: name -> digest of what went in.
        code_version: number that a stage raises when the same input gives another result.
        tools: package -> version, of those that shape the result.
        files: path inside the result -> bytes.
    """

    schema_number: int = 1
    stage: str
    key: str
    inputs: Mapping[str, str]
    config: Mapping[str, JsonValue]
    code_version: int
    tools: Mapping[str, str] = {}
    seconds: float
    files: Mapping[str, int]


@dataclass(frozen=True)
class StageResult:
    """A finished stage result.

    Attributes:
        reused: it was there already.
        seconds: what computing it took, then or now.
    """

    path: Path
    key: str
    reused: bool
    seconds: float


@dataclass(frozen=True)
class Store:
    """Content-addressed results under one folder. Safe for several processes."""

    root: Path

    def compute(
        self,
        stage: str,
        inputs: Mapping[str, str],
        config: Mapping[str, JsonValue],
        code_version: int,
        build: Callable[[Path], None],
        tools: Mapping[str, str] | None = None,
        renew: bool = False,
    ) -> StageResult:
        """The result of `stage` for these inputs, computed only if it is not there, or if `renew` asks for it anew.

        `build` writes its files into the empty folder that it is given.

        Raises:
            StoreError: the folder cannot be written (no permission, disk full).
        """
        key = self.key(stage, inputs, config, code_version, tools)
        final = self.root / "store" / stage / key
        with explain_disk_errors(self.root):
            if not renew and (found := self._existing(final)):
                return StageResult(final, key, True, found.seconds)
            with held(self.root / "store" / "locks" / key):
                if not renew and (found := self._existing(final)):  # another process was faster
                    return StageResult(final, key, True, found.seconds)
                temporary = self.root / "store" / "tmp" / key
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                start = time.perf_counter()
                try:
                    build(temporary)
                    seconds = time.perf_counter() - start
                    info = StageInfo(
                        stage=stage,
                        key=key,
                        inputs=inputs,
                        config=config,
                        code_version=code_version,
                        tools=tools or {},
                        seconds=seconds,
                        files=sync_files(temporary),
                    )
                    info.save(temporary / STAGE_FILE)
                    final.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(final, ignore_errors=True)  # an incomplete leftover, if any
                    temporary.rename(final)
                except BaseException:
                    shutil.rmtree(temporary, ignore_errors=True)
                    raise
            return StageResult(final, key, False, seconds)

    def key(
        self,
        stage: str,
        inputs: Mapping[str, str],
        config: Mapping[str, JsonValue],
        code_version: int,
        tools: Mapping[str, str] | None = None,
    ) -> str:
        """The key under which `compute` stores the result of the same arguments: 32 hex digits."""
        identity = {"stage": stage, "inputs": dict(inputs), "config": dict(config), "code": code_version}
        return digest_of(identity | {"tools": dict(tools or {})})[:32]

    def resume_file(self, key: str) -> Path:
        """Where a long stage keeps its state while it runs; only the holder of the key's lock writes it."""
        path = self.root / "store" / "resume" / key
        with explain_disk_errors(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def folder(self, name: str) -> Path:
        """Folder of one recipe's run, made if missing."""
        path = self.root / name
        with explain_disk_errors(self.root):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
                raise StoreError(f"{path}: cannot be made ({error.strerror}); use another folder with --runs") from None
        return path

    def _existing(self, final: Path) -> StageInfo | None:
        if not (final / STAGE_FILE).is_file():
            return None
        try:
            info = StageInfo.load(final / STAGE_FILE)
        except FileFormatError as error:
            logger.warning("%s; computing it again", error)
            return None
        for name, size in info.files.items():
            path = final / name
            if not path.is_file() or path.stat().st_size != size:
                logger.warning("%s is missing or has another size than recorded; computing the stage again", path)
                return None
        return info


@contextmanager
def explain_disk_errors(root: Path) -> Iterator[None]:
    """Turn a full disk or a lack of permission into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{root}: the disk is full; free some space or use another folder with --runs. "
                "What was finished is kept, the same command goes on from there"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise StoreError(
                f"{error.filename2 or error.filename or root}: {error.strerror}; a file is where a folder "
                "should be, or the other way round: use another place"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"{error.filename or root}: no permission to write; use another folder with --runs"
            ) from error
        raise


def write_result(path: Path, record: Record) -> None:
    """Save a record into the run folder, with disk errors explained."""
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        record.save(path)


__all__ = ["StageInfo", "StageResult", "Store", "explain_disk_errors", "write_atomically", "write_result"]
