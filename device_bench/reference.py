"""The reference loop: fixed arithmetic in the measuring process, whose time tells how fast its core is just now.

It needs no memory, so only the clock and other work on the same core can change it: `stability` compares it before and
after a measurement. The native runners have a loop of their own, in native/runner.cpp. Times of the two cannot be
compared, nor those of unlike devices; only the times within one run.
"""

import time

REFERENCE_REPEATS = 5
"""How often the loop is timed before and after: enough for a median that one interruption does not move."""

# About 5 ms on a fast core.
_STEPS = 80_000


def reference_loops(count: int = REFERENCE_REPEATS) -> tuple[int, ...]:
    """Nanoseconds that each of `count` loops took."""
    return tuple(_loop() for _ in range(count))


def _loop() -> int:
    start = time.perf_counter_ns()
    whole, real = 1, 1.0
    for _ in range(_STEPS):
        # each step needs the one before; the whole number stays one that Python keeps ready
        whole = (whole * 5 + 3) & 0xFF
        real = real * 0.999 + 1.0
    return time.perf_counter_ns() - start
