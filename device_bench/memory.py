"""Resident memory of the process that asks."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far: VmHWM, or ru_maxrss where there is no /proc (macOS).

    On Linux ru_maxrss is no alternative: it starts at the peak of the process that started this one.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restart_peak() -> bool:
    """Let the peak begin anew at what is resident now, where the kernel allows it (Linux; man proc_pid_clear_refs).

    Returns:
        Whether it did. If not, memory that was needed only before counts on.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
