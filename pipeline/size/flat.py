"""Reads flatbuffers with every offset checked, and books what it reads.

The readers that come with flatbuffers trust the file: on a damaged one they loop, return other bytes or raise anything.
Format: https://flatbuffers.dev/internals/. A field is named by its slot: its place in the schema's table, which never
changes once a schema is published.
"""

import struct
from dataclasses import dataclass, field

from phonefit.pipeline.size.ledger import GRAPH, NAMES, Ledger, Owner

_NUMBERS = {code: struct.Struct(f"<{code}") for code in "bBhHiIqQ"}
# What may be read in all, so that a damaged file which leads in circles ends: in bytes of the flatbuffer, many times
# over because vectors and strings may be shared. A table costs as much as reading it takes, in bytes of a string.
_READINGS, _SPARE, _TABLE_COST = 8, 1 << 16, 64


@dataclass
class Flat:
    """One flatbuffer inside a file: bytes `start` to `end`.

    Attributes:
        budget: how much more may be read.
    """

    ledger: Ledger
    start: int
    end: int
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.ledger.check(self.start, self.end, "a flatbuffer")
        self.budget = _READINGS * (self.end - self.start) + _SPARE

    def spend(self, cost: int, position: int) -> None:
        """Count what is read.

        Raises:
            BrokenFileError: it is more than a flatbuffer of this size can hold.
        """
        self.budget -= cost
        if self.budget < 0:
            raise self.ledger.broken(position, "offsets lead in circles")

    def number(self, code: str, position: int) -> int:
        """Integer of a struct code at a byte of the file."""
        reader = _NUMBERS[code]
        if not self.start <= position <= self.end - reader.size:
            raise self.ledger.broken(position, "an offset leads out of the flatbuffer")
        return int(reader.unpack_from(self.ledger.content, position)[0])

    def range(self, start: int, length: int, what: str) -> tuple[int, int]:
        """Checked (start, end) of a piece."""
        if not self.start <= start <= self.end or not 0 <= length <= self.end - start:
            raise self.ledger.broken(start, f"{what} of {length:,} bytes leaves the flatbuffer")
        return start, start + length

    def root(self, identifier: bytes, owner: Owner = GRAPH) -> "Table":
        """Root table of a flatbuffer with this file identifier."""
        self.range(self.start, 8, "the header")
        found = self.ledger.content[self.start + 4 : self.start + 8]
        if found != identifier:
            raise self.ledger.broken(self.start + 4, f"the identifier is {found!r}, not {identifier!r}")
        self.ledger.claim(self.start, self.start + 8, owner)
        return self.table(self.start + self.number("I", self.start), owner)

    def table(self, position: int, owner: Owner) -> "Table":
        """The table at a byte, booked to `owner` with its vtable."""
        self.spend(_TABLE_COST, position)
        if (position - self.start) % 4:
            raise self.ledger.broken(position, "a table is not aligned to 4 bytes")
        vtable = position - self.number("i", position)
        size, extent = self.number("H", vtable), self.number("H", vtable + 2)
        if (vtable - self.start) % 2 or size % 2 or size < 4 or extent < 4:
            raise self.ledger.broken(vtable, "no list of fields where a table says that it has one")
        self.ledger.claim(*self.range(vtable, size, "a list of fields"), GRAPH)
        self.ledger.claim(*self.range(position, extent, "a table"), owner)
        return Table(self, position, vtable, size, extent, owner)


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose own bytes are known to lie inside the flatbuffer."""

    flat: Flat
    position: int
    vtable: int
    size: int
    extent: int
    owner: Owner

    def place(self, slot: int, width: int) -> int:
        """Byte of a field, 0 where the table lacks it."""
        entry = 4 + 2 * slot
        if entry + 2 > self.size:
            return 0
        offset = self.flat.number("H", self.vtable + entry)
        if not offset:
            return 0
        if offset < 4 or offset + width > self.extent:
            raise self.flat.ledger.broken(self.vtable + entry, "a field lies outside its table")
        return self.position + offset

    def number(self, slot: int, code: str, default: int = 0) -> int:
        """An integer field."""
        place = self.place(slot, _NUMBERS[code].size)
        return self.flat.number(code, place) if place else default

    def target(self, slot: int) -> int:
        """Byte that an offset field points to, 0 where the table lacks it."""
        place = self.place(slot, 4)
        return place + self.flat.number("I", place) if place else 0

    def table(self, slot: int, owner: Owner | None = None) -> "Table | None":
        """A table field, booked to this table's owner or to another."""
        target = self.target(slot)
        return self.flat.table(target, owner or self.owner) if target else None

    def vector(self, slot: int, width: int) -> tuple[int, int]:
        """First byte and number of elements of a vector; (0, 0) where the table lacks it."""
        target = self.target(slot)
        if not target:
            return 0, 0
        if (target - self.flat.start) % 4:
            raise self.flat.ledger.broken(target, "a vector is not aligned to 4 bytes")
        count = self.flat.number("I", target)
        self.flat.range(target + 4, count * width, "a vector")
        return target + 4, count

    def book(self, slot: int, width: int, owner: Owner | None = None) -> tuple[int, int]:
        """The same, with its length and content booked."""
        start, count = self.vector(slot, width)
        if start:
            self.flat.ledger.claim(start - 4, start, owner or self.owner)  # apart: a buffer may share the content
            self.flat.ledger.claim(start, start + count * width, owner or self.owner)
        return start, count

    def tables(self, slot: int, owner: Owner | None = None) -> "list[Table]":
        """A vector of tables."""
        return [self.flat.table(place, owner or self.owner) for place in self.places(slot)]

    def places(self, slot: int) -> list[int]:
        """Bytes of the tables of a vector, for reading each with its own owner."""
        start, count = self.book(slot, 4)
        self.flat.spend(count, start)
        return [at + self.flat.number("I", at) for at in range(start, start + 4 * count, 4)]

    def numbers(self, slot: int, code: str, owner: Owner | None = None) -> tuple[int, ...]:
        """A vector of integers."""
        reader = _NUMBERS[code]
        start, count = self.book(slot, reader.size, owner)
        self.flat.spend(count, start)
        return struct.unpack_from(f"<{count}{code}", self.flat.ledger.content, start)

    def text(self, slot: int, owner: Owner = NAMES) -> str:
        """A string with its length and its closing zero booked."""
        start, count = self.vector(slot, 1)
        if not start:
            return ""
        _, end = self.flat.range(start, count + 1, "a string")
        self.flat.spend(count, start)
        if self.flat.ledger.content[end - 1]:
            raise self.flat.ledger.broken(end - 1, "a string does not end with a zero")
        self.flat.ledger.claim(start - 4, end, owner)
        return self.flat.ledger.text(start, end - 1)
