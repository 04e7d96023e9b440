"""Takes .onnx files apart. Schema: onnx/onnx.proto, the numbers are those of its fields."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod

from phonefit.pipeline.size.ledger import GRAPH, NAMES, Ledger, Owner
from phonefit.pipeline.size.number_types import BITS, stored_bytes
from phonefit.pipeline.size.wire import DEEPEST, Field, fields, varint

_TYPES = (
    "", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64",
    "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8", "float8", "float8", "float8", "uint4", "int4",
    "float4", "float8", "uint2", "int2", "float6", "float6",
)  # fmt: skip
_METADATA = Owner("metadata", "metadata", "metadata")
# What is inside a message by the number of its field: another message, or text that counts apart. The rest is graph.
_MESSAGES: dict[str, dict[int, str | Owner]] = {
    "model": {2: _METADATA, 6: _METADATA, 7: "graph", 14: _METADATA, 20: "training", 25: "function"},
    "graph": {
        1: "node", 2: NAMES, 5: "tensor", 10: _METADATA, 11: "value", 12: "value", 13: "value", 15: "sparse",
        16: _METADATA,
    },
    "node": {1: NAMES, 2: NAMES, 3: NAMES, 5: "attribute", 6: _METADATA, 9: _METADATA},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 13: _METADATA, 22: "sparse", 23: "sparse"},
    "value": {1: NAMES, 3: _METADATA, 4: _METADATA},
    "function": {1: NAMES, 7: "node", 8: _METADATA, 11: "attribute", 12: "value", 14: _METADATA},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
}  # fmt: skip
_DIMS, _DATA_TYPE, _NAME, _RAW, _DOC, _LOCATION, _TENSOR_METADATA = 1, 2, 8, 9, 12, 13, 16
_LISTS = (4, 5, 6, 7, 10, 11)  # values by type instead of raw bytes: floats, integers, strings, ...
_FIXED = {4: 4, 10: 8}  # bytes of a value in the lists of float and double; integers have a variable length
_STRINGS = 6
_HIGH = bytes(range(0x80, 0x100))  # bytes that do not end an integer
# Inputs that hold scales and zero points, by operator; inputs with quantised values and where their scales are.
_SCALES = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
}  # fmt: skip
_SCALED = {"DequantizeLinear": {0: 1}, "QLinearConv": {3: 4}, "QLinearMatMul": {3: 4}}
_QUANTISED = {"DequantizeLinear": (0,), "QLinearConv": (8,)}  # int32 values that are biases


@dataclass
class _Tensor:
    """A TensorProto; `pieces` are the ranges of its values, each with the number of its field."""

    place: int
    name: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    pieces: list[tuple[int, int, int]] = field(default_factory=list)
    external: str = ""


@dataclass
class _Model:
    """What is found while reading: tensors, and which operator reads which name at which input."""

    ledger: Ledger
    tensors: list[_Tensor] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)
    readers: dict[str, list[tuple[str, int, list[str]]]] = field(default_factory=dict)


def read(ledger: Ledger) -> tuple[Counter[str], Counter[str], int | None, tuple[str, ...]]:
    """Book an .onnx file; returns its operators, delegated operators, partitions and external files.

    Raises:
        BrokenFileError: it is none, or not a whole one.
    """
    model = _Model(ledger)
    end = len(ledger.content)
    numbers = Counter(item.number for item in fields(ledger, 0, end))
    if numbers[1] != 1 or numbers[7] != 1:
        raise ledger.broken(0, f"{numbers[1]} IR versions and {numbers[7]} graphs; an .onnx model has one of each")
    if not numbers[8]:  # written behind the graph, so a file may be cut off between
        raise ledger.broken(end, "no version of the operators, which every .onnx model has")
    _walk(model, "model", 0, end, GRAPH, 0)
    by_name = {tensor.name: tensor for tensor in model.tensors}
    scales = {name: _scales_of(readers, by_name) for name, readers in model.readers.items() if name in by_name}
    sections = {name: _section(tensor, model.readers.get(name, [])) for name, tensor in by_name.items()}
    for tensor in model.tensors:
        users = len(model.readers.get(tensor.name, []))
        facts = Owner(sections[tensor.name], tensor.name, "tensor", tensor.dtype, tensor.shape)
        _book(ledger, tensor, replace(facts, scales=scales.get(tensor.name, 0), users=users))
    external = tuple(dict.fromkeys(tensor.external for tensor in model.tensors if tensor.external))
    return model.operators, Counter(), None, external


def _walk(model: _Model, message: str, start: int, end: int, owner: Owner, depth: int, name: str = "") -> None:
    """Book a message; `name` is for tensors in attributes, which have none of their own."""
    ledger = model.ledger
    if depth > DEEPEST:
        raise ledger.broken(start, f"messages nested more than {DEEPEST} deep")
    if message == "tensor":
        _tensor(model, start, end, owner, name)
        return
    known = _MESSAGES[message]
    if message == "node":
        owner, name = _operator(model, start, end)
    for item in fields(ledger, start, end):
        inside = known.get(item.number)
        if inside is None:
            counted = message == "node" and item.number == 4
            ledger.claim(item.head, item.end, replace(owner, users=1) if counted else owner)
            continue
        if not item.bytes_like:
            raise ledger.broken(item.head, f"field {item.number} of a {message} is a number")
        if isinstance(inside, Owner):
            ledger.claim(item.head, item.end, inside)
        else:
            ledger.claim(item.head, item.start, owner)
            _walk(model, inside, item.start, item.end, owner if inside != "graph" else GRAPH, depth + 1, name)


def _text(ledger: Ledger, item: Field) -> str:
    return ledger.text(item.start, item.end)


def _operator(model: _Model, start: int, end: int) -> tuple[Owner, str]:
    """Owner of a node and the name of its first output."""
    every = list(fields(model.ledger, start, end))
    inputs = [_text(model.ledger, item) for item in every if item.number == 1]
    outputs = [_text(model.ledger, item) for item in every if item.number == 2]
    types = [_text(model.ledger, item) for item in every if item.number == 4 and item.bytes_like]
    if len(types) != 1 or not types[0]:
        raise model.ledger.broken(start, "an operator without a type")
    model.operators[types[0]] += 1
    for place, name in enumerate(inputs):
        model.readers.setdefault(name, []).append((types[0], place, inputs))
    return Owner("graph", types[0], "operator"), outputs[0] if outputs else types[0]


def _tensor(model: _Model, start: int, end: int, owner: Owner, name: str) -> None:
    ledger = model.ledger
    tensor = _Tensor(start, name)
    dims: list[int] = []
    for item in fields(ledger, start, end):
        kind = owner
        if item.number == _RAW or item.number in _LISTS:
            tensor.pieces.append((item.start, item.end, item.number if item.bytes_like else -item.number))
            ledger.claim(item.head, item.start, owner)
            continue
        if item.number == _DIMS:
            dims.extend(_packed(ledger, item) if item.bytes_like else [item.value])
        elif item.number == _DATA_TYPE:
            if not 0 < item.value < len(_TYPES):
                raise ledger.broken(item.head, f"a tensor has the unknown type {item.value}")
            tensor.dtype = _TYPES[item.value]
        elif item.number == _NAME:
            tensor.name, kind = _text(ledger, item) or name, NAMES
        elif item.number == _LOCATION:
            entry = {part.number: _text(ledger, part) for part in fields(ledger, item.start, item.end)}
            tensor.external = entry.get(2, "") if entry.get(1) == "location" else tensor.external
        elif item.number in (_DOC, _TENSOR_METADATA):
            kind = _METADATA
        ledger.claim(item.head, item.end, kind)
    ledger.check_shape(start, tensor.name, dims)
    tensor.shape = tuple(dims)
    model.tensors.append(tensor)


def _packed(ledger: Ledger, item: Field) -> list[int]:
    found, position = [], item.start
    while position < item.end:
        value, position = varint(ledger, position, item.end)
        found.append(value)
    return found


def _book(ledger: Ledger, tensor: _Tensor, owner: Owner) -> None:
    pieces = [piece for piece in tensor.pieces if piece[1] > piece[0]]
    _check(ledger, tensor, pieces)
    for start, end, _ in pieces:
        ledger.claim(start, end, owner if len(pieces) == 1 else replace(owner, kind="other", users=0))


def _scales_of(readers: list[tuple[str, int, list[str]]], by_name: dict[str, _Tensor]) -> int:
    """How many scales the values have that these operators read."""
    found = 0
    for operator, place, inputs in readers:
        at = _SCALED.get(operator, {}).get(place, len(inputs))
        scale = by_name.get(inputs[at]) if at < len(inputs) else None
        found = max(found, prod(scale.shape) if scale is not None else 0)
    return found


def _section(tensor: _Tensor, readers: list[tuple[str, int, list[str]]]) -> str:
    if any(place in _SCALES.get(operator, ()) for operator, place, _ in readers):
        return "scales"
    bias = any(place in _QUANTISED.get(operator, ()) for operator, place, _ in readers)
    return "constants" if tensor.dtype in ("int32", "int64", "bool", "string") and not bias else "weights"


def _check(ledger: Ledger, tensor: _Tensor, pieces: list[tuple[int, int, int]]) -> None:
    """Hold the bytes of a tensor against its shape."""
    what = f"tensor {tensor.name!r} {tensor.dtype} {tensor.shape}"
    numbers = {abs(number) for _, _, number in pieces}
    if not tensor.dtype or len(numbers) > 1 or (numbers == {_RAW} and len(pieces) > 1):
        raise ledger.broken(tensor.place, f"{what} has no type, or its values twice")
    if tensor.external:
        return
    count, needed = prod(tensor.shape), stored_bytes(tensor.dtype, tensor.shape)
    if not pieces:
        if count and tensor.dtype != "string":
            raise ledger.broken(tensor.place, f"{what} has no values")
        return
    if len(pieces) > 1 or needed is None:
        return
    start, end, number = pieces[0]
    found = end - start
    if number in _FIXED:
        needed = count * _FIXED[number] * (2 if tensor.dtype.startswith("complex") else 1)
    elif number in _LISTS and number != _STRINGS:
        if BITS[tensor.dtype] < 8:
            return
        needed, found = count, len(ledger.content[start:end].translate(None, _HIGH))
    if number > 0 and found != needed:
        raise ledger.broken(start, f"{what} has {found:,} bytes or values, not {needed:,}")
