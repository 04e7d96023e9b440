"""Books every byte of a file to what it is spent on; no byte twice, none left over."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from phonefit.pipeline.size.parts import BrokenFileError, Kind, Part

SMALLEST_PADDING = 8  # zeros around bytes that are not read in detail: fewer may belong to a number

MOST_DIMENSIONS = 64  # far above what any of the formats' runtimes take


@dataclass(frozen=True, slots=True)
class Owner:
    """What bytes are spent on: a Part without its bytes.

    Tensors, delegates and entries stay apart and get a digest; other claims of one section, name and kind are one part.
    """

    section: str
    name: str = ""
    kind: Kind = "other"
    dtype: str = ""
    shape: tuple[int, ...] = ()
    scales: int = 0
    users: int = 0

    @property
    def apart(self) -> bool:
        """Whether each claim is a part of its own."""
        return self.kind in ("tensor", "delegate", "entry")


GRAPH = Owner("graph", "tables")
NAMES = Owner("names", "names")
PADDING = Owner("padding", "", "padding")
UNREFERENCED = Owner("metadata", "bytes that nothing refers to", "metadata")


@dataclass(frozen=True)
class Ledger:
    """A file's content and who owns which range of it.

    Attributes:
        claims: (start, end) -> owner.
        regions: (start, end, owner of what nobody claims there); an inner region comes after its outer one.
    """

    path: Path
    content: bytes
    claims: dict[tuple[int, int], Owner] = field(default_factory=dict)
    regions: list[tuple[int, int, Owner]] = field(default_factory=list)

    def broken(self, offset: int, problem: str) -> BrokenFileError:
        """The error of this file at a byte; for `raise`."""
        return BrokenFileError(self.path, max(0, min(offset, len(self.content))), problem)

    def check(self, start: int, end: int, what: str) -> None:
        """Raise BrokenFileError unless the range lies inside the file."""
        if not 0 <= start <= end <= len(self.content):
            raise self.broken(start, f"{what} would end at byte {end:,}, the file ends at {len(self.content):,}")

    def text(self, start: int, end: int) -> str:
        """The name in a range.

        Raises:
            BrokenFileError: it is not UTF-8, as all formats demand.
        """
        try:
            return self.content[start:end].decode()
        except UnicodeDecodeError as error:
            raise self.broken(start + error.start, "a name is not UTF-8") from None

    def check_shape(self, place: int, name: str, shape: Sequence[int]) -> None:
        """Raise BrokenFileError unless sizes can be those of a tensor."""
        if len(shape) > MOST_DIMENSIONS or any(not 0 <= size < 1 << 63 for size in shape):
            shown = f"the shape {tuple(shape)}" if len(shape) <= MOST_DIMENSIONS else f"{len(shape):,} dimensions"
            raise self.broken(place, f"tensor {name!r} has {shown}")

    def claim(self, start: int, end: int, owner: Owner) -> None:
        """Book a range. What is stored once and read from several places is booked once, with all its users.

        Raises:
            BrokenFileError: the range leaves the file.
        """
        self.check(start, end, owner.name or owner.section)
        if start == end:
            return
        known = self.claims.get((start, end))
        if known is None:
            self.claims[start, end] = owner
        elif known.apart and owner.apart:
            self.claims[start, end] = replace(known, users=known.users + owner.users)
        elif owner.apart or not known.apart:
            self.claims[start, end] = owner

    def region(self, start: int, end: int, owner: Owner) -> None:
        """Say whose the bytes between claims are in a range.

        Raises:
            BrokenFileError: the range leaves the file.
        """
        self.check(start, end, owner.name or owner.section)
        self.regions.append((start, end, owner))

    def last_claim(self) -> int:
        """End of the last range that is claimed so far."""
        return max((end for _, end in self.claims), default=0)

    def parts(self) -> tuple[Part, ...]:
        """All parts; their bytes add up to the file's size.

        Raises:
            BrokenFileError: two claims overlap without being equal, so one of them is wrong.
        """
        found: list[tuple[Owner, int, str]] = []
        position = 0
        for (start, end), owner in sorted(self.claims.items(), key=lambda item: item[0]):
            if start < position:
                raise self.broken(start, f"{owner.name or 'a table'} overlaps what is stored before it")
            found.extend(self._between(position, start))
            digest = hashlib.sha256(memoryview(self.content)[start:end]).hexdigest() if owner.apart else ""
            found.append((owner, end - start, digest))
            position = end
        found.extend(self._between(position, len(self.content)))
        return _as_parts(found)

    def _between(self, start: int, end: int) -> list[tuple[Owner, int, str]]:
        """Owners of bytes that nobody claims: zeros are padding, others belong to the innermost region around them."""
        if start == end:
            return []
        inside = [(low, high) for low, high, _ in self.regions if low < end and start < high]
        cuts = sorted({start, end, *(cut for pair in inside for cut in pair if start < cut < end)})
        found = []
        for low, high in pairwise(cuts):
            owners = [owner for first, last, owner in self.regions if first <= low and high <= last]
            found.extend(self._trimmed(low, high, owners[-1] if owners else UNREFERENCED))
        return found

    def _trimmed(self, start: int, end: int, owner: Owner) -> list[tuple[Owner, int, str]]:
        piece = self.content[start:end]
        before = len(piece) - len(piece.lstrip(b"\0"))
        if before == len(piece):
            return [(PADDING, before, "")]
        after = len(piece) - len(piece.rstrip(b"\0"))
        padding = sum(length for length in (before, after) if length >= SMALLEST_PADDING)
        return [(owner, len(piece) - padding, ""), (PADDING, padding, "")] if padding else [(owner, len(piece), "")]


def _as_parts(found: list[tuple[Owner, int, str]]) -> tuple[Part, ...]:
    apart: list[tuple[Owner, int, str]] = []
    together: dict[tuple[str, str, Kind], tuple[int, int]] = {}
    for owner, bytes_, digest in found:
        if digest:
            apart.append((owner, bytes_, digest))
            continue
        key = (owner.section, owner.name, owner.kind)
        known = together.get(key, (0, 0))
        together[key] = (known[0] + bytes_, known[1] + owner.users)
    return (
        *(
            Part(
                section=owner.section,
                name=owner.name,
                kind=owner.kind,
                bytes=bytes_,
                dtype=owner.dtype,
                shape=owner.shape,
                digest=digest,
                scales=owner.scales,
                users=owner.users,
            )
            for owner, bytes_, digest in apart
        ),
        *(
            Part(section=section, name=name, kind=kind, bytes=bytes_, users=users)
            for (section, name, kind), (bytes_, users) in together.items()
        ),
    )
