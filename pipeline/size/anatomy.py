"""Takes a model file apart: which tensor, operator or name its bytes are spent on."""

import hashlib
from importlib import import_module
from pathlib import Path

from phonefit.pipeline.size.ledger import Ledger
from phonefit.pipeline.size.parts import Anatomy, BrokenFileError, Format, Part

__all__ = ["Anatomy", "BrokenFileError", "Part", "anatomy"]

FORMATS: dict[str, Format] = {
    ".pte": "pte",
    ".tflite": "tflite",
    ".onnx": "onnx",
    ".apk": "apk",
    ".aar": "apk",
    ".so": "elf",
}
# A reader books every byte in the ledger and returns operators, delegated operators, partitions, external files.
READERS: dict[Format, str] = {
    "pte": "phonefit.pipeline.size.pte_anatomy",
    "tflite": "phonefit.pipeline.size.tflite_anatomy",
    "onnx": "phonefit.pipeline.size.onnx_anatomy",
    "apk": "phonefit.pipeline.size.archive_anatomy",
    "elf": "phonefit.pipeline.size.elf_anatomy",
}


def anatomy(path: Path) -> Anatomy:
    """Parts, operators and sections of a file.

    The suffix says what the file must be: .pte, .tflite, .onnx, .apk, .aar, .so; any other file is one part.

    Raises:
        BrokenFileError: it is missing, cut off, damaged or of another format; names the byte where reading failed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenFileError(path, 0, f"cannot be read ({error.strerror})") from None
    return anatomy_of(content, path)


def anatomy_of(content: bytes, path: Path) -> Anatomy:
    """The same for a content at hand; `path` gives the suffix and the name in messages."""
    sha256 = hashlib.sha256(content).hexdigest()
    format_ = FORMATS.get(path.suffix.lower(), "other")
    if format_ == "other":
        part = Part(section="other", name=path.name, kind="other", bytes=len(content), digest=sha256)
        return Anatomy(format="other", sha256=sha256, bytes=len(content), parts=(part,))
    ledger = Ledger(path, content)
    operators, delegated, partitions, external = import_module(READERS[format_]).read(ledger)
    return Anatomy(
        format=format_,
        sha256=sha256,
        bytes=len(content),
        parts=ledger.parts(),
        operators=dict(sorted(operators.items())),
        delegated=dict(sorted(delegated.items())),
        partitions=partitions,
        external=external,
    )
