"""A measuring process ends with the process that started it."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Make the kernel end this process when process `parent`, which started it, ends: also when it is killed.

    Linux only (man 2 PR_SET_PDEATHSIG). macOS has no such request: there a measurement whose starter was killed goes on
    until its last inference, and its result is read by nobody.

    Raises:
        SystemExit: the parent has ended already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # it may have ended before the kernel was asked
    if os.getppid() != parent:
        sys.exit(f"process {parent}, which started this measurement, has ended")
