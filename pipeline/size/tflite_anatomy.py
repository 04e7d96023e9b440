"""Takes .tflite files apart. Schema: tensorflow/compiler/mlir/lite/schema/schema.fbs, its numbers are slots there."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

from phonefit.pipeline.size.flat import Flat, Table
from phonefit.pipeline.size.ledger import GRAPH, Ledger, Owner
from phonefit.pipeline.size.number_types import stored_bytes

_TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4", "float8",
    "float8",
)  # fmt: skip
_METADATA = Owner("metadata", "metadata", "metadata")
_SCALES = Owner("scales", "scales and zero points")
_CUSTOM = 32
_LAYERS = dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), ("input", "filter", "bias"))
_INSIDE = 1  # Buffer.offset up to this: the data is in the flatbuffer
_PLAIN = ("int32", "int64", "bool", "string")  # without scales: shapes, axes, paddings


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: int
    scales: int
    sparse: bool


def read(ledger: Ledger) -> tuple[Counter[str], Counter[str], int | None, tuple[str, ...]]:
    """Book a .tflite file; returns its operators, delegated operators, partitions and external files.

    Raises:
        BrokenFileError: it is none, or not a whole one.
    """
    flat = Flat(ledger, 0, len(ledger.content))
    model = flat.root(b"TFL3")
    names = [_operator_name(code) for code in model.tables(1)]
    model.text(3, _METADATA)
    graphs = model.tables(2)
    tensors = [[_tensor(table) for table in graph.tables(0)] for graph in graphs]
    operators: Counter[str] = Counter()
    readers: dict[int, list[str]] = {}
    for graph, own in zip(graphs, tensors, strict=True):
        graph.numbers(1, "i")
        graph.numbers(2, "i")
        graph.text(4)
        for number, place in enumerate(graph.places(3)):
            name, inputs = _operator(flat, place, names)
            operators[name] += 1
            for position, index in enumerate(inputs):
                if index >= len(own) or index < -1:
                    raise ledger.broken(place, f"{name} reads tensor {index} of {len(own)}")
                if index >= 0:
                    role = _LAYERS[name][position] if position < len(_LAYERS.get(name, ())) else f"input {position}"
                    readers.setdefault(own[index].buffer, []).append(f"{name} {number} {role}")
    metadata = set(model.numbers(5, "i"))
    for entry in model.tables(6, _METADATA):
        entry.text(0, _METADATA)
        metadata.add(entry.number(1, "I"))
    _book_signatures(model)
    _book_buffers(model, [tensor for own in tensors for tensor in own], readers, metadata)
    external = tuple(group.text(0) for group in model.tables(8))
    model.tables(9)
    ledger.region(0, ledger.last_claim(), GRAPH)
    return operators, Counter(), None, external


@cache
def _operator_names() -> dict[int, str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}


def _operator_name(code: Table) -> str:
    custom = code.text(1)
    number = max(code.number(0, "b"), code.number(3, "i"))
    name = _operator_names().get(number)
    if name is None:
        raise code.flat.ledger.broken(code.position, f"no operator has the code {number}")
    return f"CUSTOM {custom}" if number == _CUSTOM else name


def _tensor(table: Table) -> _Tensor:
    shape = table.numbers(0, "i")
    name = table.text(3)
    kind = table.number(1, "b")
    if not 0 <= kind < len(_TYPES):
        raise table.flat.ledger.broken(table.position, f"tensor {name!r} has the unknown type {kind}")
    table.flat.ledger.check_shape(table.position, name, shape)
    table.numbers(7, "i")
    scales = 0
    quantisation = table.table(4)
    if quantisation is not None:
        quantisation.book(0, 4, _SCALES)
        quantisation.book(1, 4, _SCALES)
        _, scales = quantisation.book(2, 4, _SCALES)
        quantisation.book(3, 8, _SCALES)
        quantisation.table(5)
    sparsity = table.table(6)
    return _Tensor(name, _TYPES[kind], shape, table.number(2, "I"), scales, sparsity is not None)


def _operator(flat: Flat, place: int, names: list[str]) -> tuple[str, tuple[int, ...]]:
    """Type and input tensors of an operator; books its options, but not what these point to."""
    table = flat.table(place, GRAPH)
    index = table.number(0, "I")
    if index >= len(names):
        raise flat.ledger.broken(place, f"an operator has the type {index} of {len(names)}")
    owner = Owner("graph", names[index], "operator")
    flat.ledger.claim(table.position, table.position + table.extent, replace(owner, users=1))
    inputs = table.numbers(1, "i", owner)
    for slot in (2, 8):
        table.numbers(slot, "i", owner)
    for slot in (4, 12):
        table.table(slot, owner)
    for slot in (5, 7):
        table.book(slot, 1, owner)
    options = table.number(9, "Q")
    if options > _INSIDE:
        flat.ledger.claim(options, options + table.number(10, "Q"), owner)
    return names[index], inputs


def _book_signatures(model: Table) -> None:
    for signature in model.tables(7):
        signature.text(2)
        for slot in (0, 1):
            for entry in signature.tables(slot):
                entry.text(0)


def _book_buffers(model: Table, tensors: list[_Tensor], readers: dict[int, list[str]], metadata: set[int]) -> None:
    ledger = model.flat.ledger
    by_buffer: dict[int, list[_Tensor]] = {}
    for tensor in tensors:
        by_buffer.setdefault(tensor.buffer, []).append(tensor)
    buffers = model.tables(4)
    if by_buffer and max(by_buffer) >= len(buffers):
        raise ledger.broken(model.position, f"a tensor reads buffer {max(by_buffer)} of {len(buffers)}")
    for index, buffer in enumerate(buffers):
        start, length = buffer.vector(0, 1)
        if start:
            ledger.claim(start - 4, start, GRAPH)
        offset = buffer.number(1, "Q")
        if offset > _INSIDE:
            start, length = offset, buffer.number(2, "Q")
        own = by_buffer.get(index, [])
        for tensor in own:
            needed = stored_bytes(tensor.dtype, tensor.shape)
            if length and needed is not None and needed != length and not tensor.sparse:
                raise ledger.broken(
                    start, f"tensor {tensor.name!r} {tensor.dtype} {tensor.shape} has {length:,} bytes, not {needed:,}"
                )
        owner = _owner(own[0], readers.get(index, [])) if own else _unread(index, metadata)
        ledger.claim(start, start + length, owner)


def _owner(tensor: _Tensor, readers: list[str]) -> Owner:
    """Owner of a constant; one without a name gets that of the first operator that reads it."""
    section = "constants" if tensor.dtype in _PLAIN and not tensor.scales else "weights"
    name = tensor.name or next(iter(readers), "")
    return Owner(section, name, "tensor", tensor.dtype, tensor.shape, tensor.scales, len(readers))


def _unread(index: int, metadata: set[int]) -> Owner:
    if index in metadata:
        return _METADATA
    return Owner("weights", f"buffer {index} that no tensor reads", "tensor", "uint8")
