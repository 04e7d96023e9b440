"""What a data source is: its settings, its signature, and helpers that several use."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from phonefit.models.data.dataset import DataSet
from phonefit.models.errors import DataError
from phonefit.models.targets import Target, TargetKind

Item = TypeVar("Item")
Result = TypeVar("Result")

OnProgress = Callable[[int, int], None]
"""Called as (pictures done, pictures in all)."""


@dataclass(frozen=True)
class SourceConfig:
    """Where the pictures are.

    Attributes:
        path: folder or file; what it must be is up to the source.
        labels_path: file of labels, for sources that keep them apart.
        limit: take at most this many pictures, as many of each class as there are; None takes all.
        kind: what each picture must come with.
        column: name of the column that has it, for sources that are tables.
    """

    path: Path | None = None
    labels_path: Path | None = None
    limit: int | None = None
    kind: TargetKind = "class"
    column: str | None = None


class DigestCache(Protocol):
    """Remembers digests of pictures, so that an unchanged file is not decoded again to know what it shows."""

    def get(self, name: str, stamp: str) -> str | None:
        """The digest of picture `name`, if it was stored with this stamp."""
        ...

    def put(self, name: str, stamp: str, digest: str) -> None:
        """Store a digest."""
        ...


class NoCache:
    """Remembers nothing."""

    def get(self, name: str, stamp: str) -> str | None:
        """None."""
        return None

    def put(self, name: str, stamp: str, digest: str) -> None:
        """Does nothing."""


class Load(Protocol):
    """A data source: one function of this signature. `SOURCES` lists them."""

    def __call__(self, config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
        """Find and read labelled pictures. `load_data` has seen to it that the source has targets of the kind.

        Raises:
            DataError: there is nothing to learn from, with what was found and what to do.
        """
        ...


@dataclass(frozen=True)
class Candidate:
    """A labelled picture that was found and not read yet.

    Attributes:
        stamp: changes when the file does; None when it cannot be told.
    """

    name: str
    label: Target
    stamp: str | None


def required_path(config: SourceConfig, source: str) -> Path:
    """The configured path.

    Raises:
        DataError: there is none.
    """
    if config.path is None:
        raise DataError(f"data source {source} needs a path; set data.path")
    return config.path


def file_stamp(path: Path) -> str | None:
    """Size and times of last change of a file; None when it cannot be looked at.

    The time of change of the inode shows also edits that keep the time of modification.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def balanced_shares(available: Sequence[int], total: int) -> tuple[int, ...]:
    """How many to take of each class so that the counts are as equal as `available` allows; they add up to `total`.

    With less than `total` available, all are taken. Of equal classes the first get the remainder.
    """
    shares = [0] * len(available)
    left = min(total, sum(available))
    while left:
        still = [index for index, count in enumerate(available) if shares[index] < count]
        each = max(left // len(still), 1)
        for index in still[:left]:
            taken = min(each, available[index] - shares[index])
            shares[index] += taken
            left -= taken
    return tuple(shares)


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], chunk: int = 256) -> Iterator[Result]:
    """`map` on a few threads, in order; at most `chunk` results wait in memory. Pillow decodes outside the GIL."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), chunk):
            yield from pool.map(function, items[start : start + chunk])
