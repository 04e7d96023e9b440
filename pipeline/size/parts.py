"""What a model file is made of: parts whose bytes add up to its size, and the error for files that cannot tell."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from phonefit.models.record import Frozen, Record
from phonefit.pipeline.errors import PhonefitError

Format = Literal["pte", "tflite", "onnx", "apk", "elf", "other"]
Kind = Literal["tensor", "operator", "delegate", "entry", "metadata", "padding", "other"]


class BrokenFileError(PhonefitError):
    """A model file that is not whole, or not of the format that its name says. A broken measurement: exits with 3.

    Attributes:
        path: the file.
        offset: byte of the file at which reading failed.
    """

    exit_code = 3

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        super().__init__(f"{path}: broken at byte {offset:,}: {problem}; convert or copy the file again")
        self.path = path
        self.offset = offset


class Part(Frozen):
    """One piece of a file.

    Attributes:
        section: "weights" (constants that layers multiply by or add), "constants" (shapes, axes and other constants),
            "scales" (of quantised tensors, with zero points), "graph" (operators, descriptions of tensors), "names",
            "metadata" (what no runtime needs to compute), "delegate:BACKEND" (a compiled graph), "padding"; for
            archives and libraries the kind of entry, for example "native" or "code".
        name: of the tensor, operator, entry; it may be empty, and two parts may bear one name.
        dtype: "float32", "float16", "int8", "int4" …; empty where the part has none.
        shape: of a tensor, outermost dimension first.
        digest: sha256 of the content, for tensors, delegates and entries; equal digests are equal contents.
        scales: number of quantisation scales: 0 for none, 1 for one for the tensor, n for n channels.
        users: how many places in the graph read this content.
    """

    section: str
    name: str
    kind: Kind
    bytes: int
    dtype: str = ""
    shape: tuple[int, ...] = ()
    digest: str = ""
    scales: int = 0
    users: int = 0


class Anatomy(Record):
    """A file taken apart.

    Attributes:
        parts: in the order of the file; their bytes add up to `bytes` exactly.
        operators: count by type, casts included; those inside delegates are counted in `delegated`.
        delegated: count by type of the operators inside delegates that can be read (XNNPACK in .pte).
        partitions: number of delegate calls; None where the format has none.
        external: files beside this one that hold part of its tensors; their bytes are not counted here.
    """

    schema_number: int = 1
    format: Format
    sha256: str
    bytes: int
    parts: tuple[Part, ...]
    operators: Mapping[str, int] = {}
    delegated: Mapping[str, int] = {}
    partitions: int | None = None
    external: tuple[str, ...] = ()

    def sections(self) -> dict[str, int]:
        """Bytes by section, largest first; they add up to the file's size."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total[part.section] += part.bytes
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
