"""Text of a device's own programs -> frozen records; battery and heat are in `power_parsers`.

Pure. Line ends are taken as they come: a terminal on the way makes CRLF. A value that a version of Android does not
print is None, never a guess.
"""

import re
from collections.abc import Mapping

from phonefit.device_bench.device import DeviceError
from phonefit.models.record import Frozen

_SHOWN_CHARACTERS = 200


class ParseError(DeviceError):
    """A program on the device printed something else than expected."""

    def __init__(self, program: str, text: str) -> None:
        shown = text.strip()[:_SHOWN_CHARACTERS] or "nothing"
        super().__init__(
            f"{program}: cannot be read, it printed: {shown!r}; run it by hand (adb shell) to see what is wrong with it"
        )


class Identity(Frozen):
    """Who a phone is, from its properties. Empty where a property is not set."""

    manufacturer: str
    model: str
    soc: str
    android_version: str
    sdk: int | None
    abi: str
    fingerprint: str


class MemoryInfo(Frozen):
    """/proc/meminfo: memory of the device."""

    total_bytes: int
    free_bytes: int
    available_bytes: int | None
    swap_total_bytes: int
    swap_free_bytes: int


class ProcessMemory(Frozen):
    """`dumpsys meminfo PROCESS`: memory of one process. Resident size is printed since Android 11."""

    pss_bytes: int
    private_dirty_bytes: int
    swap_pss_bytes: int | None
    rss_bytes: int | None


class CoreClock(Frozen):
    """Clock of one core, in kHz. None where the kernel keeps a value from the shell."""

    core: int
    now_kilohertz: int | None
    least_kilohertz: int | None
    most_kilohertz: int | None
    governor: str


class FileSystem(Frozen):
    """One line of `df -k`."""

    device: str
    total_bytes: int
    used_bytes: int
    available_bytes: int
    mounted_on: str


class LogLine(Frozen):
    """One line of `logcat -v threadtime`. `level`: V, D, I, W, E or F."""

    time: str
    pid: int
    tid: int
    level: str
    tag: str
    text: str


class Launch(Frozen):
    """`am start -W`. Times in milliseconds; LaunchState is printed since Android 10."""

    ok: bool
    activity: str
    launch_state: str
    total_milliseconds: int | None
    wait_milliseconds: int | None
    complaint: str


def parse_getprop(text: str) -> dict[str, str]:
    """Properties by name, from `getprop`; a value may span lines."""
    return {
        match["name"]: match["value"]
        for match in re.finditer(r"^\[(?P<name>[^\]\n]+)\]: \[(?P<value>.*?)\]$", plain_text(text), re.M | re.S)
    }


def parse_identity(text: str) -> Identity:
    """Identity from `getprop`.

    Raises:
        ParseError: there is no Android version in it.
    """
    found = parse_getprop(text)
    if "ro.build.version.release" not in found:
        raise ParseError("getprop", text)
    sdk = found.get("ro.build.version.sdk", "")
    return Identity(
        manufacturer=found.get("ro.product.manufacturer", ""),
        model=found.get("ro.product.model", ""),
        soc=_soc(found),
        android_version=found["ro.build.version.release"],
        sdk=int(sdk) if sdk.isdigit() else None,
        abi=found.get("ro.product.cpu.abi", ""),
        fingerprint=found.get("ro.build.fingerprint", ""),
    )


def _soc(found: Mapping[str, str]) -> str:
    # ro.soc.* exist since Android 12; before it every maker had a property of its own
    if found.get("ro.soc.model"):
        return f"{found.get('ro.soc.manufacturer', '')} {found['ro.soc.model']}".strip()
    names = ("ro.hardware.chipname", "ro.chipname", "ro.mediatek.platform", "ro.board.platform", "ro.hardware")
    return next((found[name] for name in names if found.get(name)), "")


def parse_meminfo(text: str) -> MemoryInfo:
    """/proc/meminfo.

    Raises:
        ParseError: it does not tell the total.
    """
    found = {match[1]: int(match[2]) * 1024 for match in re.finditer(r"^(\w+):\s+(\d+) kB$", plain_text(text), re.M)}
    if "MemTotal" not in found or "MemFree" not in found:
        raise ParseError("/proc/meminfo", text)
    return MemoryInfo(
        total_bytes=found["MemTotal"],
        free_bytes=found["MemFree"],
        available_bytes=found.get("MemAvailable"),
        swap_total_bytes=found.get("SwapTotal", 0),
        swap_free_bytes=found.get("SwapFree", 0),
    )


def parse_process_memory(text: str) -> ProcessMemory:
    """`dumpsys meminfo PROCESS` of one process.

    Raises:
        ParseError: there is no such process, or no table.
    """
    plain = plain_text(text)
    row = re.search(r"^\s+TOTAL\s+(\d[\d\s]*)$", plain, re.M)
    columns = re.search(r"^\s+Pss\s+Private\s+Private\s.*$", plain, re.M)
    if row is None or columns is None:
        raise ParseError("dumpsys meminfo", text)
    values = [int(word) * 1024 for word in row[1].split()]
    swap = re.search(r"TOTAL SWAP PSS:\s+(\d+)", plain)
    resident = re.search(r"TOTAL RSS:\s+(\d+)", plain)
    return ProcessMemory(
        pss_bytes=values[0],
        private_dirty_bytes=values[1],
        swap_pss_bytes=int(swap[1]) * 1024 if swap else None,
        rss_bytes=int(resident[1]) * 1024 if resident else None,
    )


def parse_cpufreq(text: str) -> tuple[CoreClock, ...]:
    """Clocks from `grep -H . /sys/devices/system/cpu/cpu*/cpufreq/scaling_*`; in order, () if none is readable."""
    found: dict[int, dict[str, str]] = {}
    for core, name, value in re.findall(r"/cpu(\d+)/cpufreq/(\w+):\s*(.*)$", plain_text(text), re.M):
        found.setdefault(int(core), {})[name] = value.strip()
    return tuple(
        CoreClock(
            core=core,
            now_kilohertz=integer(values.get("scaling_cur_freq")),
            least_kilohertz=integer(values.get("scaling_min_freq")),
            most_kilohertz=integer(values.get("scaling_max_freq")),
            governor=values.get("scaling_governor", ""),
        )
        for core, values in sorted(found.items())
    )


def parse_df(text: str) -> tuple[FileSystem, ...]:
    """`df -k` of toybox, busybox or coreutils; a long device name may stand on a line of its own.

    Raises:
        ParseError: not one line of it can be read.
    """
    pattern = r"^(\S+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+%\s+(\S.*)$"
    rows = re.findall(pattern, re.sub(r"^(\S+)\n\s+", r"\1 ", plain_text(text), flags=re.M), re.M)
    if not rows:
        raise ParseError("df", text)
    return tuple(
        FileSystem(
            device=device,
            total_bytes=int(total) * 1024,
            used_bytes=int(used) * 1024,
            available_bytes=int(available) * 1024,
            mounted_on=place.strip(),
        )
        for device, total, used, available, place in rows
    )


def parse_logcat(text: str) -> tuple[LogLine, ...]:
    """`logcat -v threadtime`, with or without year, user or time zone; lines of another form are left out."""
    pattern = (
        r"^(?P<time>(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d+(?: [+-]\d{4})?)\s+(?:[\w.]+\s+)??"
        r"(?P<pid>\d+)\s+(?P<tid>\d+)\s+(?P<level>[VDIWEF])\s+(?P<tag>.*?)\s*: (?P<text>.*)$"
    )
    return tuple(
        LogLine(
            time=match["time"],
            pid=int(match["pid"]),
            tid=int(match["tid"]),
            level=match["level"],
            tag=match["tag"],
            text=match["text"],
        )
        for match in re.finditer(pattern, plain_text(text), re.M)
    )


def parse_am_start(text: str) -> Launch:
    """`am start -W`.

    Raises:
        ParseError: it tells neither a status nor an error.
    """
    plain = plain_text(text)
    fields = dict(re.findall(r"^(\w+): (.*)$", plain, re.M))
    complaint = "; ".join(re.findall(r"^(?:Error|Warning|Exception occurred)[ \w]*: ?(.*)$", plain, re.M))
    failed = re.search(r"^Error|^Exception occurred|^java\.lang\.", plain, re.M) is not None
    if "Status" not in fields and not failed:
        raise ParseError("am start", text)
    return Launch(
        ok=fields.get("Status") == "ok" and not failed,
        activity=fields.get("Activity", ""),
        launch_state=fields.get("LaunchState", ""),
        total_milliseconds=integer(fields.get("TotalTime")),
        wait_milliseconds=integer(fields.get("WaitTime")),
        complaint=complaint,
    )


def plain_text(text: str) -> str:
    """The text with one line feed a line: a terminal gives CRLF, a terminal within a terminal CRCRLF."""
    return re.sub(r"\r+\n", "\n", text).rstrip("\r")


def integer(text: str | None) -> int | None:
    """A whole number, or None where the text is no such."""
    return int(text) if text is not None and re.fullmatch(r"[-+]?\d+", text.strip()) else None
