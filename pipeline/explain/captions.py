"""How the figures of an explanation were obtained, in words for tables and plots."""

from phonefit.pipeline.explain.result import Explanation, Timing


def captions(found: Explanation) -> list[str]:
    """How the figures were obtained."""
    assumed = "; ".join(f"{name}: {words}" for name, words in found.settings.items())
    lines = [
        "error: mean squared change of the network's outputs relative to their variance (1 %: 20 dB) on "
        f"{found.pictures} pictures of the calibration set, one layer changed at a time, without training. {assumed}"
    ]
    return [*lines, *(() if found.timing is None else _on_times(found.timing)), *found.notes]


def _on_times(timing: Timing) -> list[str]:
    lines = [
        f"time: {timing.source}, {timing.runtime} {timing.precision} on {timing.device}. Each layer is asked about "
        "alone, between a 1x1 convolution and a global average pool, which are subtracted; shares are of the layers' "
        "sum, not of the network"
    ]
    if timing.doubtful:
        lines.append(
            f"{timing.doubtful} of {timing.asked} times are not to be trusted: they were taken while other programs "
            "ran; times of an idle machine: bench.reuse=false"
        )
    return lines
