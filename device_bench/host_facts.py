"""What is known about this machine: its identity, and the conditions that change while it works."""

import os
import platform
import subprocess
from pathlib import Path

import psutil
from pydantic import JsonValue

from phonefit.device_bench.device import DeviceInfo

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
# How long processor use is watched before a measurement.
_WATCH_SECONDS = 0.2


def host_info() -> DeviceInfo:
    """Identity of this machine, from /proc/cpuinfo (sysctl on macOS) and psutil."""
    details = {"kernel": platform.release(), "usable_cores": str(usable_cores())}
    if _GOVERNOR.is_file():
        details["governor"] = _GOVERNOR.read_text().strip()
    return DeviceInfo(
        kind="host",
        name=processor_name(),
        architecture=platform.machine(),
        cores=psutil.cpu_count() or 1,
        ram_bytes=psutil.virtual_memory().total,
        operating_system=platform.system(),
        details=details,
    )


def host_conditions() -> dict[str, JsonValue]:
    """Load average over a minute, use right now of the cores that this process may use, free memory, clock where the
    system tells it.

    The load average lags by a minute, so work that has just ended is still in it; the processor use is that of the last
    0.2 s, for which this call waits.
    """
    mask = usable_mask()
    shares = psutil.cpu_percent(interval=_WATCH_SECONDS, percpu=True)
    usable = [share for core, share in enumerate(shares) if mask is None or mask >> core & 1] or shares
    frequency = psutil.cpu_freq()
    conditions: dict[str, JsonValue] = {
        "cores": len(usable),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "busy_cores": round(sum(usable) / 100, 2),
        "available_bytes": psutil.virtual_memory().available,
    }
    if frequency is not None:
        conditions["clock_megahertz"] = round(frequency.current)
    return conditions


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor, or its architecture when the system does not say."""
    if cpuinfo.is_file():
        names = parse_cpuinfo(cpuinfo.read_text())
        return names or platform.machine()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return found or platform.machine()
    return platform.processor() or platform.machine()


def parse_cpuinfo(text: str) -> str:
    """Processor name in the text of /proc/cpuinfo: "model name" on x86, else "Hardware" or "Model"; "" if none."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return next((fields[key] for key in ("model name", "Hardware", "Model") if fields.get(key)), "")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1


def usable_mask() -> int | None:
    """The same as a mask, bit k for core k; None where the system binds no process to cores (macOS)."""
    return sum(1 << core for core in os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
