"""What the size gate can measure, and the limits on it: growth that warns or fails, budgets, creep. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import ByteSize, Field, TypeAdapter, ValidationError, model_validator

from phonefit.models.record import Frozen
from phonefit.pipeline.errors import UnknownNameError

SECTION = "section:"
"""Prefix of a measure that is one section of the file, such as "section:weights"."""

Word = str | int | float


@dataclass(frozen=True)
class Amount:
    """How far a figure may move: an absolute amount in its unit, a share of the old figure, or whichever is less.

    Attributes:
        absolute: None for no such limit.
        relative: 0.02 is 2 %; None for no such limit.
    """

    absolute: float | None = None
    relative: float | None = None

    def of(self, old: float) -> float | None:
        """The amount in the figure's unit; None when nothing is given."""
        parts = [part for part in (self.absolute, None if self.relative is None else self.relative * abs(old))
                 if part is not None]  # fmt: skip
        return min(parts) if parts else None

    def __str__(self) -> str:
        words = [] if self.relative is None else [f"{self.relative * 100:g} %"]
        return " or ".join([*words, *([] if self.absolute is None else [f"{self.absolute:,g}"])])


@dataclass(frozen=True)
class Measure:
    """A quantity that the gate knows.

    Attributes:
        unit: "bytes", "instructions", "share" (0..1), or "" for a plain number.
        source: what gives it: the file itself ("file"), its graph ("delegation"), the counting emulator ("counts"), or
            the clock of this machine, two files in turn ("clock").
        more_is_better: growth is good, and a budget is the least value.
        floor: what may differ between two measurements of one file; a movement up to it never counts. None for
            counts: they repeat exactly, see docs/devices.md.
        warn: default, when no limit says otherwise.
    """

    summary: str
    unit: str
    source: Literal["file", "delegation", "counts", "clock"]
    warn: Amount
    fail: Amount
    floor: Amount = Amount()
    more_is_better: bool = False


MEASURES: dict[str, Measure] = {
    "bytes": Measure("size of the file", "bytes", "file", Amount(relative=0.005), Amount(relative=0.02)),
    "delegated": Measure(
        "share of the operators that the fast backend takes",
        "share",
        "delegation",
        Amount(absolute=0.0),
        Amount(absolute=0.05),
        more_is_better=True,
    ),
    "partitions": Measure(
        "pieces handed to the fast backend", "", "delegation", Amount(absolute=0.0), Amount(absolute=2.0)
    ),
    "instructions": Measure(
        "instructions of one inference, counted on emulator:counts",
        "instructions",
        "counts",
        Amount(relative=0.005),
        Amount(relative=0.02),
    ),
    "bytes_moved": Measure(
        "bytes that one inference reads and writes, counted on emulator:counts",
        "bytes",
        "counts",
        Amount(relative=0.005),
        Amount(relative=0.02),
    ),
    "peak_memory": Measure(
        "peak memory that the model adds, counted on emulator:counts",
        "bytes",
        "counts",
        Amount(relative=0.01),
        Amount(relative=0.03),
        floor=Amount(absolute=4096.0),  # counted in whole pages
    ),
    "latency": Measure(
        "median latency on this machine, the blessed file and the present one in turn",
        "ratio",
        "clock",
        Amount(relative=0.05),
        Amount(relative=0.1),
    ),
}
_SECTION_MEASURE = Measure("one section of the file", "bytes", "file", Amount(), Amount())


def measure_named(name: str) -> Measure:
    """The measure of this name; "section:NAME" is one section of the file.

    Raises:
        UnknownNameError: there is none.
    """
    if name.startswith(SECTION) and len(name) > len(SECTION):
        return _SECTION_MEASURE
    if name not in MEASURES:
        raise UnknownNameError("measure", name, [*MEASURES, f"{SECTION}NAME"])
    return MEASURES[name]


class Limit(Frozen):
    """One [[limits]] table of sizes.toml.

    Attributes:
        match: pattern of artifact names: * and ? match any characters, also "/".
        measure: a key of MEASURES, or section:NAME.
        warn: growth over the baseline that warns: "1%", "16KiB", a number in the unit, or several of them, of which
            the first that is reached counts. Empty: never.
        budget: the most that is allowed (the least, where more is better), whatever the baseline says.
        creep: growth over a period (`--since`) that is too much, in small steps or large.
    """

    match: str = "*"
    measure: str = "bytes"
    warn: Word | tuple[Word, ...] | None = None
    fail: Word | tuple[Word, ...] | None = None
    budget: Word | None = None
    creep: Word | tuple[Word, ...] | None = None
    note: str = Field(default="", description="for people; not used")

    @model_validator(mode="after")
    def _makes_sense(self) -> "Limit":
        try:
            kind = measure_named(self.measure)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        for words in (self.warn, self.fail, self.creep):
            amount_of(words or ())
        if self.budget is not None:
            if kind.source == "clock":
                raise ValueError("latency of this machine has no budget: it is only compared with the blessed file's")
            if amount_of((self.budget,)).absolute is None:
                raise ValueError(f"budget {self.budget!r} must be an amount such as 4MB, not a share")
        if self.measure == "latency" and any(
            amount_of(words or ()).absolute is not None for words in (self.warn, self.fail)
        ):
            raise ValueError('latency is compared as a ratio: give a share such as "10%"')
        return self


@dataclass(frozen=True)
class Rule:
    """The limits of one measure of one artifact, from all tables that match."""

    warn: Amount
    fail: Amount
    floor: Amount
    budget: float | None
    creep: Amount
    more_is_better: bool


def amount_of(words: Word | Sequence[Word]) -> Amount:
    """Read "1%", "16KiB", 4096 or a list of them.

    Raises:
        ValueError: it is neither a share, nor a size, nor a number; or two of one kind, or negative.
    """
    absolute: float | None = None
    relative: float | None = None
    for word in (words,) if isinstance(words, str | int | float) else words:
        if isinstance(word, str) and word.strip().endswith("%"):
            if relative is not None:
                raise ValueError(f"two shares in {words!r}; give one share and one amount at most")
            relative = _number(word.strip().removesuffix("%"), word) / 100
        else:
            if absolute is not None:
                raise ValueError(f"two amounts in {words!r}; give one share and one amount at most")
            absolute = float(word) if isinstance(word, int | float) else _size(word)
    if any(part is not None and not 0 <= part < float("inf") for part in (absolute, relative)):
        raise ValueError(f"{words!r}: a limit cannot be negative or infinite")
    return Amount(absolute, relative)


def rule_for(limits: Sequence[Limit], name: str, measure: str) -> Rule:
    """The rule of one measure of artifact `name`: later tables replace what earlier ones say, key by key."""
    kind = measure_named(measure)
    warn, fail, creep, budget = kind.warn, kind.fail, Amount(), None
    for limit in limits:
        if limit.measure != measure or not fnmatchcase(name, limit.match):
            continue
        warn = warn if limit.warn is None else amount_of(limit.warn)
        fail = fail if limit.fail is None else amount_of(limit.fail)
        creep = creep if limit.creep is None else amount_of(limit.creep)
        budget = budget if limit.budget is None else amount_of((limit.budget,)).absolute
    return Rule(warn, fail, kind.floor, budget, creep, kind.more_is_better)


def limited_measures(limits: Sequence[Limit], name: str) -> list[str]:
    """The measures that some limit names for artifact `name`, in the order of the tables."""
    return list(dict.fromkeys(limit.measure for limit in limits if fnmatchcase(name, limit.match)))


def exceeds(amount: Amount, floor: Amount, old: float, moved: float) -> bool:
    """Whether a movement to the worse by `moved` is more than `amount` allows, and more than noise."""
    allowed = amount.of(old)
    return allowed is not None and moved > max(allowed, floor.of(old) or 0.0)


def _number(text: str, word: Word) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{word!r} is not a limit; write it as 1%, 16KiB or 4096") from None


def _size(word: str) -> float:
    try:
        return float(TypeAdapter(ByteSize).validate_python(word))
    except ValidationError:
        raise ValueError(f"{word!r} is not a limit; write it as 1%, 16KiB or 4096") from None
