"""Types of numbers in tensors, by their name here."""

from math import prod

# Bits of one value. Types that are missing here (strings, resources, float6) have no fixed size.
BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "float8": 8, "float4": 4,
    "int64": 64, "int32": 32, "int16": 16, "int8": 8, "int4": 4, "int2": 2,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "uint4": 4, "uint2": 2,
    "bool": 8, "complex64": 64, "complex128": 128,
}  # fmt: skip


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a dense tensor, values of less than a byte packed; None where the type has no fixed size."""
    bits = BITS.get(dtype)
    return None if bits is None else (prod(shape) * bits + 7) // 8
