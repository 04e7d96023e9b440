"""The one root of every error that a person may see, and the errors of the bottom layer.

The root lives here because `models` is the lowest layer and every other layer must be able to raise its children.
A message says what failed, with which value, and what to do. `exit_code` is what the command line returns for it.
"""

import difflib
from collections.abc import Iterable


class PhonefitError(Exception):
    """Root of all errors raised on purpose. Printed without a traceback; user errors exit with 2."""

    exit_code: int = 2


class UnknownNameError(PhonefitError):
    """A name that is not in a registry."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}")


class FileFormatError(PhonefitError):
    """A file that is not what its place or its name says, or whose schema this version does not know."""


class ModelError(PhonefitError):
    """A model that cannot be built as asked, or weights that do not belong to it."""


class DataError(PhonefitError):
    """A data set that cannot be read or cannot serve its purpose."""


def first_line(error: BaseException) -> str:
    """Type of an error and the first line of its message that says something, for errors of libraries."""
    lines = (line.strip(" \t-=*#") for line in str(error).splitlines())
    said = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
