"""Where a study is kept, and how the processes that work on it keep out of each other's way.

A place gives Optuna's storage and two kinds of locks: one for the whole study, held while a trial is chosen, and one
for each trial, held while it runs. A trial that runs according to the study and whose lock is free was lost: the
kernel, or the database, drops a lock when its process dies.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from phonefit.pipeline.errors import StoreError
from phonefit.pipeline.folders import held, try_lock
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_search import is_database

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

Release = Callable[[], None]
FILES = {"sqlite": "study.db", "journal": "study.journal"}


class Place(Protocol):
    """Where a study is kept. Can be sent to other processes."""

    @property
    def study_name(self) -> str:
        """Name of the study in its storage."""
        ...

    @property
    def shown(self) -> str:
        """The place in words, without a password."""
        ...

    @property
    def remedy(self) -> str:
        """What to do when it cannot be read or written."""
        ...

    @property
    def leftovers(self) -> tuple[Path, ...]:
        """Studies of the same search that are kept elsewhere in its folder."""
        ...

    def missing(self) -> bool:
        """Whether there can be no study yet."""
        ...

    def storage(self) -> "BaseStorage":
        """The storage, made if missing."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Hold the lock of the study; waits for other processes."""
        ...

    def claim(self, number: int) -> Release:
        """Take the lock of a new trial; returns what drops it."""
        ...

    def lost(self, numbers: Sequence[int]) -> list[int]:
        """Those of the running trials whose process died. Call it while the study is held."""
        ...


def place_of(recipe: Recipe, folder: Path) -> Place:
    """Where the study of a recipe is kept.

    Raises:
        RecipeError: the driver of the database is not installed.
    """
    if not is_database(recipe.search.storage):
        return FilePlace(folder, FILES[recipe.search.storage])
    from phonefit.pipeline.search.storage_postgres import PostgresPlace

    return PostgresPlace(recipe.search.storage, recipe.name)


@dataclass(frozen=True)
class FilePlace:
    """A file in the run folder, and lock files beside it: for the processes of one machine."""

    folder: Path
    file: str

    study_name = "search"
    remedy = (
        "check free space and permissions. "
        "If the file is damaged, delete it: results in the store and in trials/ are kept"
    )

    @property
    def shown(self) -> str:
        """The file."""
        return str(self.folder / self.file)

    @property
    def leftovers(self) -> tuple[Path, ...]:
        """The files that other settings of search.storage use."""
        others = [self.folder / file for file in FILES.values() if file != self.file]
        return tuple(path for path in others if path.is_file())

    def missing(self) -> bool:
        """Whether there is no such file."""
        return not (self.folder / self.file).is_file()

    def storage(self) -> "BaseStorage":
        """The storage in the file."""
        path = self.folder / self.file
        if self.file == FILES["journal"]:
            return _journal(path)
        from optuna.storages import RDBStorage

        # A creator, because a path in a URL loses its special characters.
        return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": partial(_connect, path)})

    def held(self) -> AbstractContextManager[None]:
        """Hold the study's lock file."""
        return held(self.folder / "locks" / "study")

    def claim(self, number: int) -> Release:
        """Hold the trial's lock file."""
        path = self._lock_of(number)
        lock = try_lock(path)
        assert lock is not None  # nobody else has this number

        def release() -> None:
            path.unlink(missing_ok=True)
            lock.close()

        return release

    def lost(self, numbers: Sequence[int]) -> list[int]:
        """The trials whose lock files are free."""
        return [number for number in numbers if self._free(number)]

    def _free(self, number: int) -> bool:
        path = self._lock_of(number)
        lock = try_lock(path)
        if lock is None:
            return False
        with lock:
            path.unlink(missing_ok=True)
        return True

    def _lock_of(self, number: int) -> Path:
        return self.folder / "locks" / f"trial-{number}"


def _connect(path: Path) -> sqlite3.Connection:
    """Safe against a killed process at any moment, and quicker than SQLite's default, which syncs each step twice."""
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _journal(path: Path) -> "BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class KernelLock(JournalFileOpenLock):
        """Dropped when its process dies; that of Optuna is a file, which then stays for 30 s."""

        _handle: TextIOWrapper | None = None

        def acquire(self) -> bool:
            self._handle = path.with_name(f"{path.name}.lock").open("w")
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            return True

        def release(self) -> None:
            assert self._handle is not None  # it was acquired
            self._handle.close()

    lock = KernelLock(str(path))
    lock.acquire()
    try:
        _cut_half_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_half_line(path: Path) -> None:
    """Remove what a process that was killed while it wrote left behind the last whole line."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


@contextmanager
def explain_storage_errors(place: Place) -> Iterator[None]:
    """Turn errors of the database into one sentence."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StoreError(f"{place.shown}: the study cannot be read or written ({cause}); {place.remedy}") from error
