"""Running a program in the guest under a memory limit, by cgroup v2 (linux/Documentation/admin-guide/cgroup-v2.rst).

Everything that the program is the first to touch counts: its memory, the pages of the files that it reads or maps, and
what the kernel needs for it. Pages of files can be dropped and read again, so a limit below the file's size slows a
program down before it ends it, as on a phone; and as there, one that does little else than wait for its pages is ended.
Caches are emptied first: a page that is already there counts for whoever brought it in, and the peak would depend on
what ran before.

The commands and the text that they print are made and read here; sending them is `phonefit.device_bench.adb`'s work.
"""

import re
from collections.abc import Sequence

from phonefit.device_bench.device import MeasurementError
from phonefit.models.record import Frozen

_GROUP = "/sys/fs/cgroup/phonefit"
_MARK = "phonefit-memory:"
# Microseconds of a second in which the program stood still for want of memory. Android's lmkd, with its defaults, ends
# an app that does so for 700 ms of a second (psi_complete_stall_ms, source.android.com/docs/core/perf/lmkd); here a
# page comes back from the disk faster than on a phone, so that the rest of the second is spent on fetching it.
_LONGEST_STALL = 400_000
# $1: the group's folder, $2: memory.max, then the program. A group that an interrupted run left behind goes first.
# While the program runs, this shell waits for its exit status at the end of a pipe, and looks up once a second.
_SCRIPT = f"""
group=$1 limit=$2 pipe=/tmp/${{1##*/}}.pipe; shift 2
if [ -d "$group" ]; then echo 1 > "$group/cgroup.kill"; fi
while [ -d "$group" ] && ! rmdir "$group" 2> /dev/null; do sleep 0.05; done
mkdir "$group" && echo "$limit" > "$group/memory.max" || exit 125
if [ -e "$group/memory.swap.max" ]; then echo 0 > "$group/memory.swap.max"; fi
rm -f "$pipe"; mkfifo "$pipe" || exit 125
exec 3<> "$pipe"
sync; echo 3 > /proc/sys/vm/drop_caches
( sh -c 'echo $$ > "$0/cgroup.procs" && exec "$@"' "$group" "$@" 3>&-; echo $? >&3 ) &
stalled=0 before=0 now=0
if [ "$limit" = max ]; then read -r code <&3; fi
until [ -n "$code" ] || read -r -t 1 code <&3; do
  while read -r kind _ _ _ total; do
    if [ "$kind" = full ]; then now=${{total#total=}}; fi
  done < "$group/memory.pressure"
  if [ $((now - before)) -gt {_LONGEST_STALL} ]; then stalled=1; echo 1 > "$group/cgroup.kill"; fi
  before=$now
done
wait
echo
events=$(tr ' \n' '= ' < "$group/memory.events")
echo "{_MARK} code=$code stalled=$stalled peak=$(cat "$group/memory.peak") $events"
rmdir "$group"; rm "$pipe"
exit "$code"
"""


class MemoryUse(Frozen):
    """What the kernel says about a program that ran in a group of its own.

    Attributes:
        exit_code: of the program; 128 + the signal's number when it was killed.
        peak_bytes: memory.peak: the largest use of program, file pages and kernel together.
        limit_hits: how often the limit was reached and memory had to be taken back ("max" of memory.events).
        oom_kills: processes that were killed because nothing more could be taken back.
        stalled: it was ended because it did little else than wait for pages that had been taken from it.
    """

    exit_code: int
    peak_bytes: int
    limit_hits: int
    oom_kills: int
    stalled: bool

    @property
    def out_of_memory(self) -> bool:
        """Whether the limit ended the program."""
        return self.oom_kills > 0 or self.stalled


def limited(command: Sequence[str], limit_bytes: int | None, group: str = _GROUP) -> list[str]:
    """The command that runs `command` in a memory group of its own, limited or only observed.

    What it prints ends with one line for `memory_use`; it exits as `command` did, or with 125 when
    there can be no group.
    """
    return ["sh", "-c", _SCRIPT, "phonefit", group, "max" if limit_bytes is None else str(limit_bytes), *command]


def memory_use(output: str) -> tuple[MemoryUse, str]:
    """The figures, and what the program itself had printed.

    Raises:
        MeasurementError: the line with the figures is missing or incomplete.
    """
    said, mark, line = output.rpartition(_MARK)
    fields = dict(re.findall(r"(\w+)=(\d+)", line))
    if not mark or not {"code", "stalled", "peak", "max", "oom_kill"} <= fields.keys():
        raise MeasurementError(
            f"the emulated phone reported no memory figures (it said {output[-500:]!r}); "
            "stop it with `python -m phonefit.device_bench.emulator stop` and measure again"
        )
    use = MemoryUse(
        exit_code=int(fields["code"]),
        peak_bytes=int(fields["peak"]),
        limit_hits=int(fields["max"]),
        oom_kills=int(fields["oom_kill"]),
        stalled=fields["stalled"] != "0",
    )
    return use, said.removesuffix("\n")


def processor_of(cpuinfo: str) -> str:
    """Name of an Arm core in the text of /proc/cpuinfo, which has only numbers for it; "" when they are unknown."""
    return _CORES.get((_hexadecimal("CPU implementer", cpuinfo), _hexadecimal("CPU part", cpuinfo)), "")


def _hexadecimal(key: str, cpuinfo: str) -> str:
    found = re.search(rf"^{key}\s*:\s*(0x[0-9a-f]+)", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


# Implementer and part of MIDR_EL1 (Arm's reference manuals of the cores).
_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
}
