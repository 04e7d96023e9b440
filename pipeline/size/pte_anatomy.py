"""Takes .pte files apart: a program, and behind it segments with constants, named data and compiled graphs.

Schema: executorch's schema/program.fbs, its numbers are slots there. Layout of the file:
https://docs.pytorch.org/executorch/stable/pte-file-format.html
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from phonefit.pipeline.size import xnnpack_anatomy
from phonefit.pipeline.size.flat import Flat, Table
from phonefit.pipeline.size.ledger import GRAPH, Ledger, Owner
from phonefit.pipeline.size.number_types import stored_bytes

_TYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
    12: "int8", 13: "uint8", 14: "int32", 15: "bfloat16", 22: "int16", 23: "float8", 24: "float8", 25: "float8",
    26: "float8", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip
_HEADER, _HEADER_WITH_SEGMENTS = 24, 32
_TENSOR, _STRING = 5, 6  # in the union of kinds of values
_VECTORS = {7: 8, 8: 8, 9: 1, 10: 4, 11: 4}  # kinds of values that are lists: bytes of an element
_KERNEL_CALL, _DELEGATE_CALL = 1, 2
_XNNPACK = "XnnpackBackend"
_INSTRUCTIONS = ("kernel", "delegate", "move", "jump_false", "free")
_EXTERNAL = 1  # TensorDataLocation
_STACK = Owner("metadata", "stack traces", "metadata")
_UNREAD = Owner("weights", "constants that no tensor reads")
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor of the program whose values are in the file."""

    index: int
    owner: Owner
    place: int
    mutable_segment: int | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one method of the program holds."""

    constants: tuple[_Constant, ...]
    delegates: tuple[tuple[str, bool, int, int], ...]  # backend, in a segment, index there, byte of its table
    operators: Counter[str]
    calls: int
    external: tuple[str, ...]


def read(ledger: Ledger) -> tuple[Counter[str], Counter[str], int | None, tuple[str, ...]]:
    """Book a .pte file; returns its operators, delegated operators, partitions and external files.

    Raises:
        BrokenFileError: it is none, or not a whole one.
    """
    end, base, tail = _header(ledger)
    program = _program(ledger, end)
    plans = [_plan(table) for table in program.tables(1)]
    segments = _segments(program, base, tail)
    named = {name: _segment(program, segments, index) for name, index in _named(program)}
    operators, delegated = Counter[str](), Counter[str]()
    inline = _inline(program, 3)
    graphs: dict[Range, Counter[str]] = {}
    delegates = [delegate for plan in plans for delegate in plan.delegates]
    for number, (backend, in_segment, index, place) in enumerate(delegates):
        stored = segments if in_segment else inline
        if index >= len(stored):
            raise ledger.broken(place, f"{backend} reads blob {index} of {len(stored)}")
        start, stop = stored[index]
        owner = Owner(f"delegate:{backend}", f"delegate {number}", "delegate")
        if backend != _XNNPACK:
            ledger.claim(start, stop, replace(owner, users=1))
            continue
        if (start, stop) not in graphs:  # equal graphs are stored once
            ledger.region(start, stop, replace(owner, kind="other"))
            graphs[start, stop] = xnnpack_anatomy.read(ledger, start, stop, named)
        delegated.update(graphs[start, stop])
    for name, (start, stop) in named.items():
        if (start, stop) not in ledger.claims:
            ledger.claim(start, stop, Owner("weights", name, "tensor", "uint8"))
    constants = [constant for plan in plans for constant in plan.constants]
    _book_constants(program, segments, [constant for constant in constants if constant.mutable_segment is None])
    _book_mutable(program, segments, [constant for constant in constants if constant.mutable_segment is not None])
    for plan in plans:
        operators.update(plan.operators)
    external = tuple(dict.fromkeys(name for plan in plans for name in plan.external))
    return operators, delegated, sum(plan.calls for plan in plans), external


def _header(ledger: Ledger) -> tuple[int, int, int]:
    """End of the program, first byte of the segments (0 without any), end of the segments."""
    content = ledger.content
    ledger.check(0, 8, "the header")
    size = len(content)
    if content[8:12] != b"eh00":
        return size, 0, size
    ledger.check(8, 8 + _HEADER, "the extended header")
    flat = Flat(ledger, 0, size)
    length = flat.number("I", 12)
    end, base = flat.number("Q", 16), flat.number("Q", 24)
    if length < _HEADER or not 8 + length <= end <= size:
        raise ledger.broken(12, f"a header of {length:,} bytes and a program of {end:,} in a file of {size:,}")
    if base and not end <= base <= size:
        raise ledger.broken(24, f"segments start at {base:,}, the program ends at {end:,}, the file at {size:,}")
    tail = size
    if length >= _HEADER_WITH_SEGMENTS and base:
        tail = base + flat.number("Q", 32)
        if tail > size:
            raise ledger.broken(32, f"segments end at {tail:,}, the file at {size:,}")
    ledger.claim(8, 8 + length, GRAPH)
    return end, base, tail


def _program(ledger: Ledger, end: int) -> Table:
    flat = Flat(ledger, 0, end)
    identifier = ledger.content[4:8]
    if identifier[:2] != b"ET" or not identifier[2:].isdigit():
        raise ledger.broken(4, f"the identifier is {identifier!r}, not b'ET12'")
    ledger.region(0, end, GRAPH)
    return flat.root(identifier)


def _plan(table: Table) -> _Plan:
    table.text(0)
    container = table.table(1)
    if container is not None:
        container.text(0)
        container.text(1)
    constants, external = _values(table)
    table.numbers(3, "i")
    table.numbers(4, "i")
    table.numbers(8, "q")
    table.tables(9)
    names = [_operator_name(entry) for entry in table.tables(6)]
    delegates = tuple(_delegate(entry) for entry in table.tables(7))
    operators, calls = Counter[str](), 0
    for chain in table.tables(5):
        chain.numbers(0, "i")
        chain.numbers(1, "i")
        _stack_traces(chain)
        for instruction in chain.tables(2):
            name = _instruction(instruction, names, len(delegates))
            operators[name] += bool(name)
            calls += not name
    return _Plan(constants, delegates, +operators, calls, external)


def _values(plan: Table) -> tuple[tuple[_Constant, ...], tuple[str, ...]]:
    constants, external = [], []
    for value in plan.tables(2):
        kind, inner = value.number(0, "B"), value.table(1)
        if inner is None:
            continue
        if kind == _STRING:
            inner.text(0)
        elif kind in _VECTORS:
            inner.book(0, _VECTORS[kind])
        elif kind == _TENSOR:
            constant, name = _tensor(inner)
            constants.extend([constant] if constant else [])
            external.extend([name] if name else [])
    return tuple(constants), tuple(external)


def _tensor(table: Table) -> tuple[_Constant | None, str]:
    """The constant behind a tensor, and its name where its values are in another file."""
    shape = table.numbers(2, "i")
    table.book(3, 1)
    dtype = _TYPES.get(table.number(0, "b"), "")
    table.flat.ledger.check_shape(table.position, "", shape)
    planned = table.table(6) is not None
    index = table.number(5, "I")
    extra = table.table(9)
    name = extra.text(1) if extra is not None else ""
    if extra is not None and extra.number(2, "b") == _EXTERNAL:
        return None, name or "a tensor without a name"
    segment = extra.number(0, "Q") if extra is not None else 0
    if not index or (planned and not segment):
        return None, ""
    section = "constants" if dtype in ("int32", "int64", "bool") else "weights"
    owner = Owner(section, name or f"constant {index}", "tensor", dtype, shape, users=1)
    return _Constant(index, owner, table.position, segment - 1 if planned and segment else None), ""


def _operator_name(table: Table) -> str:
    table.text(1)
    return table.text(0)


def _delegate(table: Table) -> tuple[str, bool, int, int]:
    backend = table.text(0)
    for spec in table.tables(2):
        spec.text(0)
        spec.book(1, 1)
    processed = table.table(1)
    if processed is None:
        raise table.flat.ledger.broken(table.position, f"the call of {backend} says not where its blob is")
    return backend, processed.number(0, "b") == 1, processed.number(1, "I"), table.position


def _instruction(table: Table, names: list[str], delegates: int) -> str:
    """Name of the operator that an instruction calls, empty for a delegate."""
    kind, inner = table.number(0, "B"), table.table(1)
    if inner is None or not 0 < kind <= len(_INSTRUCTIONS):
        raise table.flat.ledger.broken(table.position, f"an instruction of the unknown kind {kind}")
    name = _INSTRUCTIONS[kind - 1]
    if kind in (_KERNEL_CALL, _DELEGATE_CALL):
        index, known = inner.number(0, "i"), len(names) if kind == _KERNEL_CALL else delegates
        if not 0 <= index < known:
            raise table.flat.ledger.broken(table.position, f"{name} {index} of {known}")
        name = names[index] if kind == _KERNEL_CALL else ""
    owner = Owner("graph", name or "delegate call", "operator")
    table.flat.ledger.claim(inner.position, inner.position + inner.extent, replace(owner, users=1))
    if kind in (_KERNEL_CALL, _DELEGATE_CALL):
        inner.numbers(1, "i", owner)
    return name


def _stack_traces(chain: Table) -> None:
    for trace in chain.tables(3, _STACK):
        for frame in trace.tables(0, _STACK):
            for slot in (0, 2, 3):
                frame.text(slot, _STACK)


def _segments(program: Table, base: int, tail: int) -> list[Range]:
    ledger = program.flat.ledger
    found = []
    for table in program.tables(4):
        offset, size = table.number(0, "Q"), table.number(1, "Q")
        if not base or offset + size > tail - base:
            raise ledger.broken(table.position, f"a segment of {size:,} bytes at {offset:,} leaves the file")
        found.append((base + offset, base + offset + size))
    for before, after in pairwise(sorted(segment for segment in found if segment[0] < segment[1])):
        if after[0] < before[1]:
            raise ledger.broken(after[0], "two segments overlap")
    return found


def _segment(program: Table, segments: list[Range], index: int) -> Range:
    if index >= len(segments):
        raise program.flat.ledger.broken(program.position, f"segment {index} of {len(segments)}")
    return segments[index]


def _named(program: Table) -> list[tuple[str, int]]:
    return [(entry.text(0), entry.number(1, "I")) for entry in program.tables(7)]


def _inline(program: Table, slot: int) -> list[Range]:
    """Blobs that are kept in the program itself."""
    found = []
    for table in program.tables(slot):
        start, length = table.vector(0, 1)
        if start:
            program.flat.ledger.claim(start - 4, start, GRAPH)
        found.append((start, start + length))
    return found


def _book_constants(program: Table, segments: list[Range], constants: list[_Constant]) -> None:
    table = program.table(5)
    rooms = _inline(program, 2)
    if table is not None:
        offsets = table.numbers(1, "Q")
        if offsets:
            rooms = _rooms(table, offsets, _segment(program, segments, table.number(0, "I")))
    _book(program, rooms, constants)


def _book_mutable(program: Table, segments: list[Range], constants: list[_Constant]) -> None:
    by_segment: dict[int | None, list[_Constant]] = {}
    for constant in constants:
        by_segment.setdefault(constant.mutable_segment, []).append(constant)
    for number, table in enumerate(program.tables(6)):
        rooms = _rooms(table, table.numbers(1, "Q"), _segment(program, segments, table.number(0, "I")))
        _book(program, rooms, by_segment.get(number, []))


def _rooms(table: Table, offsets: tuple[int, ...], segment: Range) -> list[Range]:
    start, end = segment
    table.flat.ledger.region(start, end, _UNREAD)
    ends = [*offsets[1:], end - start]
    for offset, stop in zip(offsets, ends, strict=True):
        if not offset <= stop <= end - start:
            raise table.flat.ledger.broken(table.position, f"a constant at {offset:,} ends at {stop:,} in its segment")
    return [(start + offset, start + stop) for offset, stop in zip(offsets, ends, strict=True)]


def _book(program: Table, rooms: list[Range], constants: list[_Constant]) -> None:
    """Book constants in their rooms; a room ends where the next begins, so it may hold padding too."""
    ledger = program.flat.ledger
    found: dict[int, Owner] = {}
    for constant in constants:
        known = found.get(constant.index)
        users = known.users + 1 if known else 1
        if constant.index >= len(rooms):
            raise ledger.broken(constant.place, f"constant {constant.index} of {len(rooms)}")
        found[constant.index] = replace(known or constant.owner, users=users)
    for index, owner in found.items():
        start, end = rooms[index]
        needed = stored_bytes(owner.dtype, owner.shape)
        needed = end - start if needed is None else needed
        if needed > end - start:
            raise ledger.broken(
                start, f"{owner.name} {owner.dtype} {owner.shape} has {end - start:,} bytes, not {needed:,}"
            )
        ledger.claim(start, start + needed, owner)
