"""Takes shared libraries (.so) apart by their sections. Format: the ELF specification, elf(5)."""

import struct
from collections import Counter

from phonefit.pipeline.size.ledger import Ledger, Owner

_ENTRY = {1: struct.Struct("<10I"), 2: struct.Struct("<2I4Q2I2Q")}  # a section header by class: 32 or 64 bits
_HEADER = {1: (52, "<I", 32, 46), 2: (64, "<Q", 40, 58)}  # its size, where its offset and its counts are
_NOT_STORED = (0, 8)  # SHT_NULL, SHT_NOBITS
_LONGEST_NAME = 4096
_DEBUG = (".debug", ".zdebug", ".symtab", ".strtab", ".gnu_debugdata")


def read(ledger: Ledger) -> tuple[Counter[str], Counter[str], int | None, tuple[str, ...]]:
    """Book a library; it has no operators.

    Raises:
        BrokenFileError: it is none for little-endian processors, or not a whole one.
    """
    content = ledger.content
    bits = content[4] if len(content) > 5 else 0
    if content[:4] != b"\x7fELF" or bits not in _HEADER or content[5] != 1:
        raise ledger.broken(0, "no shared library for a little-endian processor")
    size, code, offset_at, counts_at = _HEADER[bits]
    ledger.check(0, size, "the header")
    (table,) = struct.unpack_from(code, content, offset_at)
    length, count, names_at = struct.unpack_from("<3H", content, counts_at)
    entry = _ENTRY[bits]
    if not table or length != entry.size or not count or names_at >= count:
        raise ledger.broken(counts_at, f"{count} section headers of {length} bytes at {table:,}")
    ledger.check(table, table + length * count, "the section headers")
    headers = [entry.unpack_from(content, table + place * length) for place in range(count)]
    ledger.claim(0, size, Owner("headers", "header"))
    ledger.claim(table, table + length * count, Owner("headers", "section headers"))
    names, names_size = headers[names_at][4:6]
    ledger.check(names, names + names_size, "the names of sections")
    for name_at, kind, _, _, start, stored, *_ in headers:
        if kind in _NOT_STORED:
            continue
        end = content.find(b"\0", names + name_at, names + min(name_at + _LONGEST_NAME, names_size))
        if name_at >= names_size or end < 0:
            raise ledger.broken(names, f"a section has its name at {name_at:,} of {names_size:,} bytes")
        name = content[names + name_at : end].decode(errors="backslashreplace")
        section = "debug" if name.startswith(_DEBUG) else "code" if name == ".text" else "data"
        ledger.claim(start, start + stored, Owner(section, name, "entry"))
    ledger.region(0, len(content), Owner("headers", "header"))
    return Counter(), Counter(), None, ()
