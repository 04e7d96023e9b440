"""A long run: how a device does when it is new to the work, and how once it is warm. Pure."""

import itertools
import re
import statistics
from collections.abc import Sequence

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.report import percentile
from phonefit.models.record import Frozen

WINDOW_SECONDS = 60.0
# Two of them, and what passes between the inferences.
LEAST_SECONDS = 130.0
# More than this slower than at the start is throttling; stability.py calls the same drift untrustworthy.
THROTTLED_RATIO = 1.10


class Window(Frozen):
    """The inferences that ended within one stretch of time."""

    start_seconds: float
    samples: int
    median_milliseconds: float
    p90_milliseconds: float


class Sustained(Frozen):
    """A long run in figures.

    Attributes:
        first: the first minute. last: the last minute.
        windows: the whole run, minute by minute; what is over at the end belongs to no minute.
        throttling_ratio: median of the last minute / median of the first; above 1 is slower.
        throttled_after_seconds: start of the first minute from which on every one is slower than allowed; None if none.
    """

    first: Window
    last: Window
    windows: tuple[Window, ...]
    throttling_ratio: float
    throttled_after_seconds: float | None


def end_times(samples: Sequence[float]) -> list[float]:
    """When each inference ended, in ns from the start, for inferences that followed each other without a pause."""
    return list(itertools.accumulate(samples))


def sustained(
    samples: Sequence[float], ends: Sequence[float] | None = None, window_seconds: float = WINDOW_SECONDS
) -> Sustained:
    """First minute, last minute, and what lies between.

    Args:
        samples: duration of each inference in ns, in order.
        ends: when each ended, in ns from the start; None for inferences without a pause between them.
        window_seconds: length of a "minute".

    Raises:
        DeviceError: the run is shorter than two windows, or an inference takes longer than one.
    """
    ends = end_times(samples) if ends is None else ends
    if len(ends) != len(samples):
        raise DeviceError(f"{len(samples)} samples but {len(ends)} end times; give one for each")
    span = window_seconds * 1e9
    total = ends[-1] if ends else 0.0
    if total < 2 * span:
        raise DeviceError(
            f"the run took {total / 1e9:.1f} s; it needs {2 * window_seconds:g} s at least: ask for more time"
        )
    count = int(total // span)
    starts = [index * span for index in range(count)]
    windows = tuple(_window(samples, ends, start, start + span) for start in starts)
    last = _window(samples, ends, total - span, total)
    limit = THROTTLED_RATIO * windows[0].median_milliseconds
    slow = [window.median_milliseconds > limit for window in windows]
    after = next((windows[i].start_seconds for i in range(count) if all(slow[i:])), None)
    return Sustained(
        first=windows[0],
        last=last,
        windows=windows,
        throttling_ratio=last.median_milliseconds / windows[0].median_milliseconds,
        throttled_after_seconds=after,
    )


def _window(samples: Sequence[float], ends: Sequence[float], start: float, end: float) -> Window:
    inside = [sample for sample, moment in zip(samples, ends, strict=True) if start < moment <= end]
    if not inside:
        raise DeviceError(
            f"no inference ended between {start / 1e9:.1f} and {end / 1e9:.1f} s: they take too long for "
            "first and last minute to be told apart"
        )
    return Window(
        start_seconds=start / 1e9,
        samples=len(inside),
        median_milliseconds=statistics.median(inside) / 1e6,
        p90_milliseconds=percentile(inside, 90) / 1e6,
    )


def run_seconds(text: str) -> float:
    """Length of a long run, from words such as "10m".

    Raises:
        DeviceError: it is not a duration, or too short to have a first and a last minute.
    """
    seconds = parse_duration(text)
    if seconds < LEAST_SECONDS:
        raise DeviceError(
            f"a sustained run of {text} has no first and last minute to compare; ask for {LEAST_SECONDS:g}s at least"
        )
    return seconds


def parse_duration(text: str) -> float:
    """Seconds from words such as "90s", "10m" or "1h"; a bare number is seconds.

    Raises:
        DeviceError: it is not a duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise DeviceError(f"{text!r} is not a duration; write it as 90s, 10m or 1h")
    return float(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]
