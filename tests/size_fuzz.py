"""Damaged files, and what taking them apart must come to: the right parts or a BrokenFileError, never anything else."""

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phonefit.pipeline.size.anatomy import Anatomy, BrokenFileError, anatomy_of

Random = np.random.Generator
# Values that offsets and lengths are confused by.
_NUMBERS = (0, 1, 2, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)
_FOREIGN = (
    b"", b"\0", b"\x89PNG\r\n\x1a\n" + bytes(200), b"version https://git-lfs.github.com/spec/v1\n", bytes(4096),
    b"PK\x03\x04" + bytes(300), b"\x7fELF" + bytes(300), b"<!DOCTYPE html><html>404</html>", b"\xff" * 3000,
)  # fmt: skip
_STRUCTURE = 4096  # bytes at the start or the end of a small file that hold most of its offsets


def _cut(content: bytes, others: list[bytes], random: Random) -> bytes:
    return content[: random.integers(len(content))]


def _flip(content: bytes, others: list[bytes], random: Random) -> bytes:
    changed = bytearray(content)
    for place in _places(content, random, int(random.integers(1, 9))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _overwrite(content: bytes, others: list[bytes], random: Random) -> bytes:
    changed = bytearray(content)
    for place in _places(content, random, int(random.integers(1, 4))):
        start = place // 4 * 4
        changed[start : start + 4] = struct.pack("<I", _NUMBERS[random.integers(len(_NUMBERS))])
    return bytes(changed[: len(content)])


def _near(content: bytes, others: list[bytes], random: Random) -> bytes:
    """Offsets that lead a little beside the right place."""
    changed = bytearray(content)
    for place in _places(content, random, int(random.integers(1, 6))):
        changed[place] = (changed[place] + int(random.integers(-16, 17))) % 256
    return bytes(changed)


def _splice(content: bytes, others: list[bytes], random: Random) -> bytes:
    other = others[random.integers(len(others))]
    start, source = int(random.integers(len(content))), int(random.integers(len(other)))
    length = int(random.integers(1, 2000))
    return content[:start] + other[source : source + length] + content[start + int(random.integers(0, 2)) * length :]


def _remove(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, length = int(random.integers(len(content))), int(random.integers(1, 500))
    return content[:start] + content[start + length :]


def _repeat(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, length = int(random.integers(len(content))), int(random.integers(1, 500))
    return content[: start + length] + content[start:]


def _blank(content: bytes, others: list[bytes], random: Random) -> bytes:
    start, length = int(random.integers(len(content))), int(random.integers(1, 500))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def _foreign(content: bytes, others: list[bytes], random: Random) -> bytes:
    chosen = int(random.integers(len(_FOREIGN) + 2))
    if chosen < len(_FOREIGN):
        return _FOREIGN[chosen]
    return others[random.integers(len(others))] if chosen == len(_FOREIGN) else random.bytes(random.integers(1, 9000))


DAMAGES: tuple[Callable[[bytes, list[bytes], Random], bytes], ...] = (
    _cut, _flip, _flip, _overwrite, _overwrite, _near, _near, _splice, _remove, _repeat, _blank, _foreign,
)  # fmt: skip


def _places(content: bytes, random: Random, count: int) -> list[int]:
    """Bytes to damage: mostly where offsets are, or most of them would fall into weights."""
    near = min(_STRUCTURE, len(content))
    start = (0, 0, len(content) - near)[random.integers(3)]
    return [start + int(random.integers(near)) for _ in range(count)]


def damaged(files: dict[str, bytes], seed: int) -> tuple[str, bytes]:
    """The suffix and the content of one damaged file; the same for the same seed."""
    random = np.random.default_rng(seed)
    names = sorted(files)
    name = names[seed % len(names)]
    others = [files[other] for other in names if Path(other).suffix != Path(name).suffix]
    if random.integers(2):
        others = [files[name]]
    damage = DAMAGES[random.integers(len(DAMAGES))]
    return Path(name).suffix, damage(files[name], others, random)


def judged(suffix: str, content: bytes) -> Anatomy | None:
    """The anatomy of a damaged file with its sums checked, or None where it is refused with a place in the file."""
    try:
        found = anatomy_of(content, Path("damaged").with_suffix(suffix))
    except BrokenFileError as error:
        assert 0 <= error.offset <= len(content) and f"{error.offset:,}" in str(error)
        return None
    assert sum(part.bytes for part in found.parts) == len(content) == found.bytes
    assert all(part.bytes >= 0 for part in found.parts)
    assert sum(found.sections().values()) == len(content)
    return found


def reference(suffix: str, content: bytes) -> tuple[Counter[str], int] | None:
    """Figures as the format's own library reads them; None where it cannot, or where they would not be comparable.

    Operators, and bytes of constants; for .pte the number of delegate calls instead.
    """
    return _REFERENCES[suffix](content)


def of_anatomy(found: Anatomy) -> tuple[Counter[str], int]:
    """The same figures of an anatomy."""
    if found.partitions is not None:
        return Counter(found.operators), found.partitions
    return Counter(found.operators), sum(part.bytes for part in found.parts if part.kind == "tensor")


def _executorch_reference(content: bytes) -> tuple[Counter[str], int] | None:
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall

    try:
        plans = deserialize_pte_binary(content).program.execution_plan
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error):
        return None  # it reads what an anatomy leaves closed, such as values of numbers and flags
    operators, calls = Counter[str](), 0
    for plan in plans:
        for step in (step.instr_args for chain in plan.chains for step in chain.instructions):
            calls += isinstance(step, DelegateCall)
            operators.update([plan.operators[step.op_index].name] if isinstance(step, KernelCall) else [])
    return operators, calls


def _onnx_reference(content: bytes) -> tuple[Counter[str], int] | None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(content).graph
    except DecodeError:
        return None
    tensors = [*graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.tensors or attribute.HasField("sparse_tensor"):
                return None
            tensors.extend([attribute.t] if attribute.HasField("t") else [])
    if len(graph.sparse_initializer) or any(not tensor.raw_data and tensor.dims != [0] for tensor in tensors):
        return None
    return Counter(node.op_type for node in graph.node), sum(len(tensor.raw_data) for tensor in tensors)


def _tflite_reference(content: bytes) -> tuple[Counter[str], int] | None:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.Model.GetRootAs(content)
    codes = [model.OperatorCodes(place) for place in range(model.OperatorCodesLength())]
    types = [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
    graphs = [model.Subgraphs(place) for place in range(model.SubgraphsLength())]
    operators = Counter(
        types[graph.Operators(place).OpcodeIndex()] for graph in graphs for place in range(graph.OperatorsLength())
    )
    metadata = {model.MetadataBuffer(place) for place in range(model.MetadataBufferLength())}
    metadata |= {model.Metadata(place).Buffer() for place in range(model.MetadataLength())}
    read = {graph.Tensors(place).Buffer() for graph in graphs for place in range(graph.TensorsLength())}
    ranges = set()
    for place in range(model.BuffersLength()):
        buffer = model.Buffers(place)
        if place in metadata - read or buffer.Offset() > 1 or not buffer.DataLength():
            continue
        ranges.add((buffer._tab.Vector(buffer._tab.Offset(4)), buffer.DataLength()))
    return operators, sum(length for _, length in ranges)


_REFERENCES: dict[str, Callable[[bytes], tuple[Counter[str], int] | None]] = {
    ".pte": _executorch_reference,
    ".tflite": _tflite_reference,
    ".onnx": _onnx_reference,
}
