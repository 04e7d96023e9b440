"""Runs enjarify with one mistake of it put right: `translate_back.py DEX --output JAR`, with enjarify on PYTHONPATH.

enjarify 1.0.3 takes the number of const-wide/32 as unsigned, so that -1L becomes 4294967295L.
"""

import sys

from enjarify import dalvikformats, main  # type: ignore[import-not-found]

CONST_WIDE_32 = 0x17
_decode = dalvikformats.decode


def decode(shorts: list[int], position: int, opcode: int) -> tuple[int, list[int]]:
    """The position after an instruction, and its arguments."""
    after, arguments = _decode(shorts, position, opcode)
    if opcode == CONST_WIDE_32:
        arguments[-1] = dalvikformats.sign(arguments[-1], 32)
    return after, arguments


dalvikformats.decode = decode
sys.exit(main.main())
