"""Which runtime a model file belongs to, by its suffix and by its first bytes; needs no runtime.

The checks are shallow on purpose: they keep text, empty, renamed and cut-off files away from native code and give one
clear message. What lies deeper is verified by the runtimes themselves when they load.
"""

import mmap
from collections.abc import Callable
from pathlib import Path

from phonefit.models.artifact import SUFFIXES, Runtime
from phonefit.models.errors import FileFormatError

# Bytes of a flatbuffer before its first table: root offset and file identifier.
_FLATBUFFER_HEADER = 8
# ExecuTorch's extended header follows: magic, length, program size, segment base, and since 1.0 the segments' size.
# https://docs.pytorch.org/executorch/stable/pte-file-format.html
_EXTENDED_HEADER = slice(8, 12)
_EXTENDED_HEADER_WITH_SEGMENTS = 32
# Fields of ModelProto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_IR_VERSION, _GRAPH = 1, 7


def runtime_of(path: Path) -> Runtime:
    """The runtime that a model file is for. Suffix and content must agree.

    Raises:
        FileFormatError: no such file, unknown suffix, empty, text, cut off, or a model of another format.
    """
    for runtime, suffix in SUFFIXES.items():
        if path.suffix.lower() == suffix:
            require(path, runtime)
            return runtime
    raise FileFormatError(f"{path}: suffix {path.suffix!r} is no model file's; known: {', '.join(SUFFIXES.values())}")


def require(path: Path, runtime: Runtime) -> None:
    """Check that a file looks like a whole model of this runtime.

    Raises:
        FileFormatError: it does not; the message says what it looks like instead.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; expected a {SUFFIXES[runtime]} model there")
    if path.stat().st_size == 0:
        raise FileFormatError(f"{path}: the file is empty; convert or copy it again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        problem = _CHECKS[runtime](content)
        if problem is None:
            return
        looks_like = [name for name, check in _CHECKS.items() if name != runtime and check(content) is None]
        if looks_like:
            problem = f"it is a {SUFFIXES[looks_like[0]]} model; name it so"
        elif _is_text(content[:1024]):
            problem = "it is a text file; a failed download or an unfetched large-file pointer looks like that"
    raise FileFormatError(f"{path}: not a {SUFFIXES[runtime]} model: {problem}")


def _executorch_problem(content: mmap.mmap) -> str | None:
    if content[4:6] != b"ET" or not content[6:8].isdigit():
        return "the identifier ET.. is missing"
    if content[_EXTENDED_HEADER] != b"eh00":
        return _flatbuffer_problem(content)
    if len(content) < 40:
        return "it ends inside its header"
    length = int.from_bytes(content[12:16], "little")
    end = int.from_bytes(content[16:24], "little")
    if length >= _EXTENDED_HEADER_WITH_SEGMENTS:
        segments = int.from_bytes(content[32:40], "little")
        end = max(end, int.from_bytes(content[24:32], "little") + segments if segments else 0)
    return _size_problem(end, len(content))


def _tflite_problem(content: mmap.mmap) -> str | None:
    if content[4:8] != b"TFL3":
        return "the identifier TFL3 is missing"
    return _flatbuffer_problem(content)


def _flatbuffer_problem(content: mmap.mmap) -> str | None:
    root = int.from_bytes(content[:4], "little")
    # the root table starts with the signed distance to its vtable, which lies before or after it inside the file
    table = root - int.from_bytes(content[root : root + 4], "little", signed=True)
    if root < _FLATBUFFER_HEADER or not 0 < table < len(content) - 4:
        return "it is cut off or damaged"
    return None


def _onnx_problem(content: mmap.mmap) -> str | None:
    """Walk the top-level protobuf fields: each must end inside the file, and a version and a graph must be there."""
    seen: set[int] = set()
    position = 0
    try:
        while position < len(content):
            key, position = _varint(content, position)
            field, wire = key >> 3, key & 7
            if wire == 0:
                _, position = _varint(content, position)
            elif wire == 2:
                length, position = _varint(content, position)
                position += length
            else:
                return f"protobuf field {field} has a type that no ONNX model has there"
            seen.add(field)
    except IndexError:
        return "it is cut off or damaged"
    if position > len(content):
        return _size_problem(position, len(content))
    if not {_IR_VERSION, _GRAPH} <= seen:
        return "it is no protobuf with an IR version and a graph"
    return None


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError("varint of more than 64 bits")


def _size_problem(expected: int, actual: int) -> str | None:
    return f"it is cut off: {actual:,} bytes of {expected:,}" if actual < expected else None


def _is_text(start: bytes) -> bool:
    try:
        text = start[:-3].decode() if len(start) > 3 else start.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


_CHECKS: dict[Runtime, Callable[[mmap.mmap], str | None]] = {
    "executorch": _executorch_problem,
    "tflite": _tflite_problem,
    "onnx": _onnx_problem,
}
