"""Takes a graph that ExecuTorch compiled for XNNPACK apart, so that its weights are seen one by one.

Layout and schema: executorch/backends/xnnpack/serialization/{schema.fbs,xnnpack_graph_serialize.py}; the numbers are
slots of the schema.
"""

import re
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from phonefit.pipeline.errors import ModelError
from phonefit.pipeline.size.flat import Flat, Table
from phonefit.pipeline.size.ledger import Ledger, Owner
from phonefit.pipeline.size.number_types import stored_bytes

_TYPES = {
    1: "float32", 2: "float16", 3: "int8", 4: "uint8", 5: "int32", 6: "int8", 7: "int32", 8: "int4", 9: "int8",
    10: "int4", 11: "int8", 12: "int32", 13: "float32", 14: "bfloat16",
}  # fmt: skip
_HEADER = 30  # four zeros, "XH00", its length, offset and size of the flatbuffer, offset and size of constant data
_GRAPH = Owner("delegate:XnnpackBackend", "graph")
_SCALES = Owner("scales", "scales and zero points")
_TENSOR_VALUE, _QUANTISED_VALUE = 1, 2
_PER_CHANNEL, _PER_TENSOR, _PER_GROUP = 1, 2, 4
# Slots of the fields with the ids of weight and bias.
_LAYERS = {"FullyConnected": (1, 2), "Conv2d": (16, 17), "DepthwiseConv2d": (16, 17), "ConvTranspose2d": (16, 17)}
Range = tuple[int, int]


@cache
def operator_names() -> tuple[str, ...]:
    """Names of XNNPACK's operators by their number in a graph. Reads the schema, without the import of executorch.

    Raises:
        ModelError: the installed executorch has no such schema.
    """
    package = find_spec("executorch")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        schema = Path(folder, "backends", "xnnpack", "serialization", "schema.fbs")
        union = re.search(r"union XNodeUnion \{(.*?)\}", schema.read_text(), re.DOTALL) if schema.is_file() else None
        if union is not None:
            return ("NONE", *re.findall(r"XNN(\w+)", re.sub(r":\s*\w+", "", union[1])))
    raise ModelError("the installed executorch has no schema of XNNPACK graphs; install the version that phonefit pins")


def read(ledger: Ledger, start: int, end: int, named: dict[str, Range]) -> Counter[str]:
    """Book the blob from `start` to `end` and the named data that it reads; returns its operators.

    Raises:
        BrokenFileError: it is none, or not a whole one.
    """
    if end - start < _HEADER:
        raise ledger.broken(start, f"a compiled graph of {end - start} bytes has no header")
    first, last, data = start, end, (end, end)
    if ledger.content[start + 4 : start + 8] == b"XH00":
        head = Flat(ledger, start, end)
        first = start + head.number("I", start + 10)
        last = first + head.number("I", start + 14)
        data_start = start + head.number("I", start + 18)
        data = (data_start, data_start + head.number("Q", start + 22))
        if not start + _HEADER <= first <= last <= end or (data[1] > data[0] and not last <= data[0] <= data[1] <= end):
            raise ledger.broken(start + 10, f"a compiled graph of {end - start:,} bytes has parts outside of it")
        ledger.claim(start, start + _HEADER, _GRAPH)
    graph = _root(ledger, first, last)
    ranges = [_range(entry, data, named) for entry in graph.tables(8)]
    names = operator_names()
    operators: Counter[str] = Counter()
    roles: dict[int, list[str]] = {}
    for place, node in enumerate(graph.tables(1)):
        kind, inner = node.number(0, "B"), node.table(1)
        if inner is None or not 0 < kind < len(names):
            raise ledger.broken(node.position, f"operator {kind}; this version of executorch knows {len(names) - 1}")
        operators[names[kind]] += 1
        node.table(3)
        for role, slot in zip(("filter", "bias"), _LAYERS.get(names[kind], ()), strict=False):
            roles.setdefault(inner.number(slot, "I"), []).append(f"{names[kind]} {place} {role}")
    for value in graph.tables(2):
        _book_value(value, ranges, roles)
    return operators


def _root(ledger: Ledger, first: int, last: int) -> Table:
    identifier = ledger.content[first + 4 : first + 8]
    if identifier[:2] != b"XN":
        raise ledger.broken(first + 4, f"a compiled graph has the identifier {identifier!r}, not b'XN01'")
    graph = Flat(ledger, first, last).root(identifier, _GRAPH)
    graph.text(0, _GRAPH)
    for slot in (4, 5, 7):
        graph.numbers(slot, "I")
    return graph


def _range(entry: Table, data: Range, named: dict[str, Range]) -> Range:
    """Where the values of a constant are."""
    key = entry.text(2, _GRAPH)
    offset, size = entry.number(0, "Q"), entry.number(1, "Q")
    if key:
        if key not in named:
            problem = f"no data named {key!r} in it; a .pte whose weights are in a .ptd beside it is not read"
            raise entry.flat.ledger.broken(entry.position, problem)
        return named[key]
    if size and offset + size > data[1] - data[0]:
        raise entry.flat.ledger.broken(entry.position, f"a constant of {size:,} bytes leaves its blob")
    return data[0] + offset, data[0] + offset + size


def _book_value(value: Table, ranges: list[Range], roles: dict[int, list[str]]) -> None:
    kind, table = value.number(0, "B"), value.table(1)
    if table is None or kind not in (_TENSOR_VALUE, _QUANTISED_VALUE):
        raise value.flat.ledger.broken(value.position, f"a value of the unknown kind {kind}")
    scales = 0
    if kind == _QUANTISED_VALUE:
        scales = _scales(table, ranges)
        inner = table.table(0)
        if inner is None:
            raise value.flat.ledger.broken(table.position, "a quantised value without a tensor")
        table = inner
    shape, dtype = table.numbers(2, "I"), _TYPES.get(table.number(0, "h"), "")
    table.flat.ledger.check_shape(table.position, "", shape)
    index, number = table.number(3, "I"), table.number(6, "I")
    if not index:
        return
    start, end = _constant(table, ranges, index)
    needed = stored_bytes(dtype, shape)
    if needed is not None and (end - start < needed if dtype == "int4" else end - start != needed):
        raise value.flat.ledger.broken(
            start, f"value {number} {dtype} {shape} has {end - start:,} bytes, not {needed:,}"
        )
    known = roles.get(number, [f"value {number}"])
    value.flat.ledger.claim(start, end, Owner("weights", known[0], "tensor", dtype, shape, scales, len(known)))


def _scales(table: Table, ranges: list[Range]) -> int:
    """Book the scales of a quantised value; returns how many there are."""
    kind, quantisation = table.number(1, "B"), table.table(2)
    if quantisation is None or kind not in (_PER_CHANNEL, _PER_TENSOR, _PER_GROUP):
        return 0
    if kind == _PER_TENSOR:
        return 1
    _, count = quantisation.book(0, 4, _SCALES)
    halves = quantisation.book(3, 2, _SCALES)[1] if kind == _PER_GROUP else 0
    index = quantisation.number(4 if kind == _PER_GROUP else 2, "I")
    if not index:
        return max(count, halves)
    table.flat.ledger.claim(*_constant(table, ranges, index), _SCALES)
    return quantisation.number(5 if kind == _PER_GROUP else 3, "I")


def _constant(table: Table, ranges: list[Range], index: int) -> Range:
    if index >= len(ranges):
        raise table.flat.ledger.broken(table.position, f"constant {index} of {len(ranges)}")
    return ranges[index]
