"""Power rails from a Perfetto trace (data source `android.power` with `collect_power_rails`), packet by packet.

Needs the package `perfetto` for the trace's classes, and not its trace processor, which it would have to download.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phonefit.device_bench.energy import EnergyUnavailableError, RailSample

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket


def rail_names(trace: bytes) -> dict[str, str]:
    """Rails in a trace: name -> subsystem, such as "S2M_VDD_CPUCL0" -> "cpu".

    Raises:
        EnergyUnavailableError: it is no trace, or the package `perfetto` is missing.
    """
    return {
        rail.rail_name: rail.subsys_name for packet in _packets(trace) for rail in packet.power_rails.rail_descriptor
    }


def rail_samples(trace: bytes, rails: Sequence[str] | None = None) -> tuple[RailSample, ...]:
    """Energy counters in a trace, summed over rails, in order of time.

    Args:
        trace: content of the trace file.
        rails: names of the rails to sum; None is all of them.

    Raises:
        EnergyUnavailableError: it is no trace, has no readings of power rails, or lacks a rail that was asked for.
    """
    names = {rail.index: rail.rail_name for packet in _packets(trace) for rail in packet.power_rails.rail_descriptor}
    unknown = sorted(set(rails or ()) - set(names.values()))
    if unknown:
        raise EnergyUnavailableError(
            f"no rail {', '.join(unknown)}; the trace has: {', '.join(sorted(names.values()))}"
        )
    wanted = {index for index, name in names.items() if rails is None or name in rails}
    latest: dict[int, float] = {}
    samples: list[RailSample] = []
    for packet in _packets(trace):
        readings = [item for item in packet.power_rails.energy_data if item.index in wanted]
        latest.update((item.index, float(item.energy)) for item in readings)
        # sums are comparable only once every rail has been read; µWs are µJ
        if readings and latest.keys() == wanted:
            moment = max(item.timestamp_ms for item in readings) / 1e3
            samples.append(RailSample(seconds=moment, microjoules=sum(latest.values())))
    if not samples:
        raise EnergyUnavailableError("the trace has no readings of power rails: phones before the Pixel 6 have none")
    return tuple(sorted(samples, key=lambda sample: sample.seconds))


def _packets(trace: bytes) -> Sequence["TracePacket"]:
    try:
        from google.protobuf.message import DecodeError
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
    except ImportError:
        raise EnergyUnavailableError("reading power rails needs the package perfetto: pip install perfetto") from None
    content = Trace()
    try:
        content.ParseFromString(trace)
    except DecodeError:
        raise EnergyUnavailableError("this is no Perfetto trace; record it with `perfetto -o FILE`") from None
    return [packet for packet in content.packet if packet.HasField("power_rails")]
