"""Reads protobuf messages with every length checked. Format: https://protobuf.dev/programming-guides/encoding/."""

from collections.abc import Iterator
from dataclasses import dataclass

from phonefit.pipeline.size.ledger import Ledger

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
DEEPEST = 100  # the nesting that protobuf itself allows


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number: as in the .proto file.
        head: first byte of the field.
        start, end: of its content, without tag and length.
        value: of integers; 0 for others.
        bytes_like: a string, bytes, message or packed list.
    """

    number: int
    head: int
    start: int
    end: int
    value: int
    bytes_like: bool


def varint(ledger: Ledger, position: int, end: int) -> tuple[int, int]:
    """An integer of variable length and the byte behind it."""
    value = 0
    for place in range(position, min(position + 10, end)):
        byte = ledger.content[place]
        value |= (byte & 0x7F) << 7 * (place - position)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place + 1
    raise ledger.broken(position, "an integer without an end")


def fields(ledger: Ledger, start: int, end: int) -> Iterator[Field]:
    """The fields of the message from `start` to `end`.

    Raises:
        BrokenFileError: a field leaves the message or has a type that protobuf does not know.
    """
    position = start
    while position < end:
        head = position
        key, position = varint(ledger, head, end)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ledger.broken(head, f"a field of the impossible number {number}")
        value = 0
        if kind == _VARINT:
            first = position
            value, position = varint(ledger, first, end)
        elif kind == _BYTES:
            length, first = varint(ledger, position, end)
            position = first + length
        elif kind in (_EIGHT, _FOUR):
            first, position = position, position + (8 if kind == _EIGHT else 4)
        else:
            raise ledger.broken(head, f"field {number} has the type {kind}, which no model has")
        if position > end:
            raise ledger.broken(head, f"field {number} ends at byte {position:,}, its message at {end:,}")
        yield Field(number, head, first, position, value, kind == _BYTES)
