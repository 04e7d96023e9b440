"""Command lines that sample power on a device while something else runs there. Pure.

A sampler runs in the background of the device, detached from adb, for as long as its flag file is there: removing that
file ends it, also when another process does so later, and it ends by itself after a while. It takes its times from
/proc/uptime, which is CLOCK_BOOTTIME, as native runners do. Its log ends with the line "end".

Rails are recorded by Android's own `perfetto`, whose configuration comes over standard input: before Android 12 it may
not read one from a file of the shell's (Perfetto documentation, "Recording traces on Android").
"""

import shlex
from collections.abc import Sequence
from typing import Literal

from phonefit.models.record import Frozen

SUPPLIES = "/sys/class/power_supply"
# The only folder that perfetto may write to and adb may fetch from.
TRACES = "/data/misc/perfetto-traces"
# Last line of a log.
END = "end"
# Longer than any measurement: a sampler whose phone nobody reaches any more ends by then.
_LONGEST_SECONDS = 3 * 3600
_RAIL_POLL_SECONDS = 0.25
_LOOK_SECONDS = 2
_FIELDS = ("type", "status", "current_now", "voltage_now", "charge_full_design")


class SysfsSource(Frozen):
    """The battery's gauge in the kernel's files, which a shell reads without starting a program."""

    kind: Literal["gauge"] = "gauge"
    folder: str
    interval_seconds: float = 0.1

    @property
    def name(self) -> str:
        """For a person."""
        return f"current and voltage of {self.folder}"


class ServiceSource(Frozen):
    """The battery's gauge by Android's battery service (Android 15 and later); a reading starts three programs."""

    kind: Literal["gauge"] = "gauge"
    interval_seconds: float = 1.0

    @property
    def name(self) -> str:
        """For a person."""
        return "current by `cmd battery get current_now`, voltage by `dumpsys battery`"


class RailSource(Frozen):
    """Counters on the phone's own power rails, recorded by perfetto.

    Attributes:
        rails: their names; all are summed.
    """

    kind: Literal["rail"] = "rail"
    rails: tuple[str, ...]

    @property
    def name(self) -> str:
        """For a person."""
        return f"the sum of {len(self.rails)} power rails"


GaugeSource = SysfsSource | ServiceSource
Source = GaugeSource | RailSource


def list_supplies() -> list[str]:
    """Prints what the shell may read of each power supply, for `power_parsers.parse_supplies`."""
    fields = " ".join(_FIELDS)
    script = (
        f'for s in {SUPPLIES}/*; do echo "supply $s"; for f in {fields}; do v=; '
        '{ read -r v < "$s/$f"; } 2>/dev/null; [ -n "$v" ] && echo "$f $v"; done; done; true'
    )
    return ["sh", "-c", script]


def service_current() -> list[str]:
    """Prints the current in µA; -f asks the hardware, not the cache (AOSP, BatteryService.onShellCommand)."""
    return ["cmd", "battery", "get", "-f", "current_now"]


def gauge_sampler(source: GaugeSource, flag: str, log: str) -> list[str]:
    """Starts writing lines "SECONDS CURRENT VOLTAGE" to the log."""
    if isinstance(source, SysfsSource):
        folder = shlex.quote(source.folder)
        reading = f"read -r i < {folder}/current_now; read -r v < {folder}/voltage_now"
    else:
        reading = (
            f"i=$({shlex.join(service_current())}); v=$(dumpsys battery | sed -n 's/^  voltage: *//p' | head -n 1)"
        )
    loop = f'i=; v=; read -r t rest < /proc/uptime; {reading}; echo "$t $i $v"'
    return _in_background(f"{_while_wanted(flag, loop, source.interval_seconds)}; echo {END}", flag, [log])


def rail_sampler(flag: str, log: str, trace: str) -> list[str]:
    """Starts recording the power rails to the trace file, which is complete when the log has ended."""
    config = shlex.quote(rail_config(_LONGEST_SECONDS))
    record = f"printf %s {config} | perfetto --txt -c - -o {shlex.quote(trace)} & p=$!"
    # SIGTERM makes perfetto write what it has and end
    finish = f"kill -TERM $p; wait $p; echo {END}"
    return _in_background(f"{record}; {_while_wanted(flag, ':', _RAIL_POLL_SECONDS)}; {finish}", flag, [log, trace])


def look_at_rails(trace: str) -> list[str]:
    """Records the rails for two seconds, to see whether there are any."""
    config = shlex.quote(rail_config(_LOOK_SECONDS))
    return ["sh", "-c", f"printf %s {config} | perfetto --txt -c - -o {shlex.quote(trace)}"]


def rail_config(seconds: int) -> str:
    """A trace configuration (perfetto, protos/perfetto/config/power/android_power_config.proto).

    The buffer is not a ring: the names of the rails come first and must stay.
    """
    return (
        f"duration_ms: {seconds * 1000} buffers {{ size_kb: 16384 fill_policy: DISCARD }} "
        'data_sources { config { name: "android.power" android_power_config { '
        f"battery_poll_ms: {_RAIL_POLL_SECONDS * 1000:.0f} collect_power_rails: true }} }} }}"
    )


def await_begin(path: str, *, empty: bool = False) -> list[str]:
    """Waits up to 20 s for a sampler to have begun with a file; exit status 0 when it has.

    Args:
        empty: that the file is there is enough: perfetto makes it at once and fills it at the end.
    """
    begun = f"[ {'-e' if empty else '-s'} {shlex.quote(path)} ]"
    return ["sh", "-c", f"{_poll(begun)}; {begun}"]


def await_end(log: str) -> list[str]:
    """Waits up to 20 s for the sampler of that log to have ended; exit status 0 when it has."""
    path = shlex.quote(log)
    ended = f'[ "$(tail -n 1 {path})" = {END} ]'
    return ["sh", "-c", f"{_poll(ended)}; {ended}"]


def _poll(condition: str) -> str:
    return f"n=0; while ! {condition} && [ $n -lt 200 ]; do n=$((n+1)); sleep 0.1; done"


def _while_wanted(flag: str, body: str, interval_seconds: float) -> str:
    most = int(_LONGEST_SECONDS / interval_seconds)
    wanted = f"[ -e {shlex.quote(flag)} ] && [ $n -lt {most} ]"
    return f"n=0; while {wanted}; do {body}; n=$((n+1)); sleep {interval_seconds:g}; done"


def _in_background(script: str, flag: str, outputs: Sequence[str]) -> list[str]:
    """Without what an earlier sampler wrote; the first output takes what the script prints."""
    start = f"rm -f {shlex.join(outputs)}; : > {shlex.quote(flag)}"
    # it must outlive the shell that starts it: no terminal, no pipe to adb, no hang-up; Android's shell, mksh, keeps
    # the pipe open behind ( … ) > FILE, so it must be exec that lets go of it
    quiet = f"exec < /dev/null > {shlex.quote(outputs[0])} 2> /dev/null"
    return ["sh", "-c", f"{start}; ( {quiet}; trap '' HUP; {script} ) &"]
