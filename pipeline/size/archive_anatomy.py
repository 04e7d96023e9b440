"""Takes Android archives (.apk, .aar) apart: what their entries take as stored, compressed or not.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT; the signature between entries and directory:
https://source.android.com/docs/security/features/apksigning/v2.
"""

import struct
from collections import Counter
from pathlib import PurePosixPath

from phonefit.pipeline.size.ledger import Ledger, Owner

_END, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_END_FIELDS = struct.Struct("<4s4H2IH")
_ENTRY_FIELDS = struct.Struct("<4s6H3I5H2I")
_LOCAL_FIELDS = struct.Struct("<4s5H3I2H")
_LONGEST_COMMENT = 0xFFFF
_DESCRIPTOR_FLAG = 8  # sizes follow the data
_ZIP64 = 0xFFFFFFFF
_MODELS = (".pte", ".tflite", ".onnx", ".ptd")
_DIRECTORY = Owner("graph", "directory of the archive")
_HEADERS = Owner("graph", "headers of entries")
_SIGNATURE = Owner("signature", "signature")


def read(ledger: Ledger) -> tuple[Counter[str], Counter[str], int | None, tuple[str, ...]]:
    """Book an archive; it has no operators.

    Raises:
        BrokenFileError: it is none, not a whole one, or one of over 4 GiB.
    """
    content = ledger.content
    end = content.rfind(_END, max(0, len(content) - _END_FIELDS.size - _LONGEST_COMMENT))
    if end < 0 or end + _END_FIELDS.size > len(content):
        raise ledger.broken(len(content), "the directory of the archive is missing")
    *_, count, size, start, comment = _END_FIELDS.unpack_from(content, end)
    if start + size > end or end + _END_FIELDS.size + comment != len(content):
        raise ledger.broken(end, f"a directory of {size:,} bytes at {start:,} does not fit")
    ledger.claim(end, end + _END_FIELDS.size, _DIRECTORY)
    ledger.claim(end + _END_FIELDS.size, len(content), Owner("metadata", "comment", "metadata"))
    position, last = start, 0
    for _ in range(count):
        if position + _ENTRY_FIELDS.size > start + size or content[position : position + 4] != _ENTRY:
            raise ledger.broken(position, "an entry of the directory is missing")
        fields = _ENTRY_FIELDS.unpack_from(content, position)
        stored, local = fields[8], fields[16]
        names, after = position + _ENTRY_FIELDS.size, position + _ENTRY_FIELDS.size + sum(fields[10:13])
        if after > start + size or _ZIP64 in (stored, local):
            raise ledger.broken(position, "an entry leaves the directory, or is one of over 4 GiB")
        ledger.claim(position, after, _DIRECTORY)
        name = content[names : names + fields[10]].decode(errors="backslashreplace")
        last = max(last, _entry(ledger, name, local, stored, start))
        position = after
    ledger.region(0, last, _HEADERS)
    ledger.region(last, start, _SIGNATURE)
    return Counter(), Counter(), None, ()


def _entry(ledger: Ledger, name: str, local: int, stored: int, directory: int) -> int:
    """Book an entry's header and content; returns its end."""
    content = ledger.content
    if local + _LOCAL_FIELDS.size > directory or content[local : local + 4] != _LOCAL:
        raise ledger.broken(local, f"the header of {name!r} is missing")
    fields = _LOCAL_FIELDS.unpack_from(content, local)
    names = local + _LOCAL_FIELDS.size
    extra, data = names + fields[9], names + fields[9] + fields[10]
    if data + stored > directory:
        raise ledger.broken(local, f"{name!r} of {stored:,} bytes leaves the archive")
    ledger.claim(local, extra, _HEADERS)  # what follows is zeros that align the content, or a description of them
    ledger.claim(data, data + stored, Owner(_section(name), name, "entry"))
    return int(data + stored)


def _section(name: str) -> str:
    path = PurePosixPath(name)
    if path.suffix in _MODELS:
        return "models"
    if path.suffix == ".so":
        return "native"
    if path.suffix in (".dex", ".jar", ".class"):
        return "code"
    if path.parts[:1] == ("META-INF",):
        return "signature"
    if path.parts[:1] == ("res",) or path.suffix == ".arsc":
        return "resources"
    return "assets"
