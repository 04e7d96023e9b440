"""What was changed on a device and how to undo it, on disk before the change is made.

A process that is killed leaves its journal behind; the next one on that device undoes what it says. An undo may run
twice, or without its change having been made: both must do no harm.
"""

from collections.abc import Callable
from pathlib import Path

from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen, Record


class Change(Frozen):
    """One change.

    Attributes:
        what: for a person.
        undo: command line on the device that takes it back.
    """

    what: str
    undo: tuple[str, ...]


class _Changes(Record):
    schema_number: int = 1
    changes: tuple[Change, ...] = ()


class Journal:
    """The changes of one device that are not undone yet; the file is there only while there are some."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def changes(self) -> tuple[Change, ...]:
        """Oldest first.

        Raises:
            FileFormatError: the file is damaged, or of a newer version.
        """
        return _Changes.load(self.path).changes if self.path.exists() else ()

    def add(self, change: Change) -> None:
        """Write down a change that is about to be made; one that is there already is not repeated."""
        known = self.changes()
        if change not in known:
            self._write((*known, change))

    def undo_all(self, undo: Callable[[Change], None]) -> None:
        """Undo everything, newest first. When `undo` raises, what is not undone stays in the journal."""
        while changes := self.changes():
            undo(changes[-1])
            self._write(changes[:-1])

    def set_aside(self) -> Path:
        """Move a damaged journal out of the way, and say where it lies now."""
        target = self.path.with_suffix(".damaged")
        self.path.replace(target)
        return target

    def _write(self, changes: tuple[Change, ...]) -> None:
        if changes:
            _Changes(changes=changes).save(self.path)
        else:
            self.path.unlink(missing_ok=True)


def read_or_set_aside(journal: Journal) -> str | None:
    """None when the journal can be read; else it is set aside and the sentence for the person is returned."""
    try:
        journal.changes()
    except FileFormatError as error:
        return f"{error}; moved to {journal.set_aside()}: settings of the device may still be changed, see the file"
    return None
