"""From counts to an estimated time on a named core.

    cycles = sum over the classes of instructions and the levels of cache: count x cycles of one
    time   = cycles / clock

The coefficients in cores.json are published throughputs of the core's pipelines and of the paths between its caches,
each with its source: what the work would take if it only had to pass through, one class after the other. Real cores
overlap classes, which makes them faster, and wait, which makes them slower. Until `fit` (fit.py) has set the
coefficients to measurements of a device, an estimate is good for comparing files that do alike work, and its absolute
value is not to be relied on. It is never `measured`: reports call it `modelled`.

Neither the disk nor other cores are modelled, nor instruction caches, branch mispredictions, the translation of
addresses, nor a clock that falls as the phone gets warm.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from phonefit.models.errors import UnknownNameError
from phonefit.models.record import Frozen

CORES_FILE = Path(__file__).with_name("cores.json")
# Counts that have a coefficient. The sum of all instructions and the bytes have none: they are told by the others.
TERMS = (
    "integer_instructions",
    "branch_instructions",
    "memory_instructions",
    "simd_multiply_instructions",
    "simd_other_instructions",
    "l1_misses",
    "l2_misses",
    "l3_misses",
)


class Cache(Frozen):
    """Size and associativity of one level; lines have 64 bytes."""

    bytes: int = Field(gt=0)
    ways: int = Field(gt=0)


class Core(Frozen):
    """A processor core as the counting tier emulates and models it.

    Attributes:
        processor: QEMU's name of it, which decides the instructions that programs find.
        frequency_hertz: clock that counts are converted with.
        memory_bytes: of the phone that it is thought to sit in; not enforced.
        cpuinfo: what Linux says about it in /proc/cpuinfo.
        cycles: cycles of one instruction of a class, or of one miss of a level of cache.
        sources: where each of these figures comes from.
        fitted: what the cycles were fitted to, and how well; "" for published ones.
    """

    summary: str
    processor: str
    frequency_hertz: float = Field(gt=0)
    memory_bytes: int = Field(gt=0)
    caches: Mapping[str, Cache]
    cpuinfo: Mapping[str, str]
    cycles: Mapping[str, float]
    sources: Mapping[str, str]
    fitted: str = ""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if set(self.caches) != {"l1", "l2", "l3"}:
            raise ValueError(f"caches must be l1, l2 and l3, got {', '.join(self.caches)}")
        if set(self.cycles) != set(TERMS) or min(self.cycles.values()) < 0:
            raise ValueError(f"cycles must give a number of 0 or more for each of {', '.join(TERMS)}")
        return self

    def guest_files(self) -> dict[str, str]:
        """Path below / -> text of the files in which Linux describes a processor with this one core.

        Libraries choose their kernels and block sizes by them. Without them they would read those of the machine that
        emulates, so that it would show in the counts. The same holds for the loader's cache and the process's status,
        whose memory is the emulator's: here it says 0.
        """
        lines = {"processor": "0", "BogoMIPS": "38.40", **self.cpuinfo}
        cpu = "sys/devices/system/cpu"
        # Linux numbers the instruction cache between the data caches; here it is as large as the first
        caches = (("1", "Data", "l1"), ("1", "Instruction", "l1"), ("2", "Unified", "l2"), ("3", "Unified", "l3"))
        return {
            "etc/ld.so.cache": "",
            "etc/ld.so.preload": "",
            "proc/self/status": "Name:\tphonefit\nVmHWM:\t       0 kB\n",
            "proc/cpuinfo": "".join(f"{name}\t: {value}\n" for name, value in lines.items()) + "\n",
            **{f"{cpu}/{name}": "0\n" for name in ("possible", "present", "online", "kernel_max")},
            **{
                f"{cpu}/cpu0/topology/{name}": "0\n" for name in ("physical_package_id", "core_id", "cluster_cpus_list")
            },
            f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": f"{self.frequency_hertz / 1000:.0f}\n",
            f"{cpu}/cpu0/cpufreq/cpuinfo_min_freq": f"{self.frequency_hertz / 1000:.0f}\n",
            **{
                f"{cpu}/cpu0/cache/index{place}/{name}": f"{value}\n"
                for place, (level, kind, cache) in enumerate(caches)
                for name, value in {
                    "level": level,
                    "type": kind,
                    "size": f"{self.caches[cache].bytes // 1024}K",
                    "ways_of_associativity": self.caches[cache].ways,
                    "coherency_line_size": 64,
                    "shared_cpu_list": 0,
                }.items()
            },
        }

    @property
    def origin(self) -> str:
        """What an estimated time is made from, and where the coefficients come from, for the notes of reports."""
        where = self.fitted or f"published for the {self.summary.partition(' at ')[0]}, not fitted to a device"
        return f"estimated from instructions and cache misses with coefficients {where}"

    def nanoseconds(self, counts: Mapping[str, float]) -> int:
        """Estimated time of work with these counts, rounded."""
        cycles = sum(counts[name] * self.cycles[name] for name in TERMS)
        return round(cycles / self.frequency_hertz * 1e9)


def cores() -> dict[str, Core]:
    """The known cores, by name."""
    return {name: Core.model_validate(content) for name, content in json.loads(CORES_FILE.read_text()).items()}


def core_named(name: str) -> Core:
    """The core of that name.

    Raises:
        UnknownNameError: no core of that name.
    """
    known = cores()
    if name not in known:
        raise UnknownNameError("core", name, known)
    return known[name]
