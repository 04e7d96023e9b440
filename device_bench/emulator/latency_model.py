"""From counts to an estimated time on a named core, and the fit of its coefficients to a real device.

    cycles = sum over the classes of instructions and the levels of cache: count x cycles of one
    time   = cycles / clock

The starting coefficients in cores.json are published throughputs of the core's pipelines and of the paths between its
caches, each with its source: what the work would take if it only had to pass through, one class after the other. Real
cores overlap classes, which makes them faster, and wait, which makes them slower. Until `fit` has set the coefficients
to measurements of a device, an estimate is good for comparing files that do alike work, and its absolute value is not
to be relied on. It is never `measured`: reports call it `modelled`.

Neither the disk nor other cores are modelled, nor instruction caches, branch mispredictions, the translation of
addresses, nor a clock that falls as the phone gets warm.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.report import Report
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
# With fewer reports than this no coefficient can be told from another, however strong the prior.
SMALLEST_FIT = 3


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
    """

    summary: str
    processor: str
    frequency_hertz: float = Field(gt=0)
    memory_bytes: int = Field(gt=0)
    caches: Mapping[str, Cache]
    cpuinfo: Mapping[str, str]
    cycles: Mapping[str, float]
    sources: Mapping[str, str]

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

    def nanoseconds(self, counts: Mapping[str, float]) -> int:
        """Estimated time of work with these counts, rounded."""
        cycles = sum(counts[name] * self.cycles[name] for name in TERMS)
        return round(cycles / self.frequency_hertz * 1e9)


class Calibration(Frozen):
    """Coefficients fitted to a real device.

    Attributes:
        cycles: for `Core.cycles`.
        reports: how many pairs of reports they were fitted to.
        error: median of |estimate / measured - 1| over those pairs.
        largest_error: the largest of them.
        unseen_error: median of the same for each pair by a fit to the others: what to expect for another model.
    """

    cycles: Mapping[str, float]
    reports: int
    error: float
    largest_error: float
    unseen_error: float

    def apply(self, core: Core, device: str) -> Core:
        """The core with these coefficients; `device` names what was measured, for the sources."""
        note = f"fitted to {self.reports} reports of {device}; median error for an unseen model {self.unseen_error:.1%}"
        return core.model_copy(
            update={"cycles": self.cycles, "sources": {**core.sources, **dict.fromkeys(TERMS, note)}}
        )


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


def fit(measured: Sequence[Report], counted: Sequence[Report], core: Core, prior: float = 0.01) -> Calibration:
    """Fit a core's coefficients to a real device.

    Least squares of the relative error, with coefficients of 0 or more (Lawson and Hanson, Solving Least Squares
    Problems, 1974). Models use the classes in much the same proportions, so that a few of them cannot tell the
    coefficients apart: each is drawn to its present value, by a penalty of `prior` x (new / present - 1) squared
    against the mean squared relative error.

    Args:
        measured: reports of the device, one thread.
        counted: reports of the same files by the counting tier.
        core: gives the clock and the coefficients to start from.
        prior: how strongly coefficients are held near the present ones.

    Raises:
        DeviceError: fewer than three files are in both, a report is of the other kind, of several threads or of
            another device than the first.
    """
    pairs = _pairs(measured, counted)
    if len(pairs) < SMALLEST_FIT:
        raise DeviceError(
            f"a fit needs at least {SMALLEST_FIT} files that were both measured on the device and counted, "
            f"got {len(pairs)}; measure more models, unlike in size and kind"
        )
    counts = np.array([[row[name] for name in TERMS] for row, _ in pairs])
    cycles = np.array([nanoseconds * core.frequency_hertz / 1e9 for _, nanoseconds in pairs])
    start = np.array([core.cycles[name] for name in TERMS])
    fitted = _least_squares(counts, cycles, start, prior)
    errors = np.abs(counts @ fitted / cycles - 1)
    unseen = []
    for left_out in range(len(pairs)):
        others = np.arange(len(pairs)) != left_out
        model = _least_squares(counts[others], cycles[others], start, prior)
        unseen.append(abs(float(counts[left_out] @ model / cycles[left_out]) - 1))
    return Calibration(
        cycles=dict(zip(TERMS, map(float, fitted), strict=True)),
        reports=len(pairs),
        error=float(np.median(errors)),
        largest_error=float(errors.max()),
        unseen_error=statistics.median(unseen),
    )


def _least_squares(
    counts: NDArray[np.float64], cycles: NDArray[np.float64], start: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    # in units of the present coefficients, so that all are of one size; one that is 0 is freed with a small unit
    unit = np.where(start > 0, start, 1e-3)
    rows = counts * unit / cycles[:, None] / np.sqrt(len(cycles))
    held = np.sqrt(prior) * np.eye(len(unit)) / np.sqrt(len(unit))
    target = np.concatenate([np.full(len(cycles), 1 / np.sqrt(len(cycles))), held @ (start / unit)])
    solution: NDArray[np.float64] = nnls(np.vstack([rows, held]), target)[0]
    return solution * unit


def _pairs(measured: Sequence[Report], counted: Sequence[Report]) -> list[tuple[dict[str, float], float]]:
    """Counts of one inference and measured nanoseconds, for each file that is in both."""
    for report in measured:
        _require(report, "measured")
        if not report.device.like(measured[0].device):
            raise DeviceError(
                f"{report.model_name} was measured on {report.device.name}, {measured[0].model_name} on "
                f"{measured[0].device.name}; a fit takes reports of one device"
            )
    times = {
        (report.model_sha256, report.runtime): statistics.median(report.figures["latency"].samples)
        for report in measured
    }
    pairs = {}
    for report in counted:
        _require(report, "modelled")
        key = (report.model_sha256, report.runtime)
        if key in times:
            row = {name: statistics.median(report.figures[name].samples) for name in TERMS}
            pairs[key] = (row, times[key])
    return [pairs[key] for key in sorted(pairs)]


def _require(report: Report, source: str) -> None:
    found = report.figures["latency"].source
    if found != source:
        raise DeviceError(f"{report.model_name}: its latency is {found}, the fit takes it where it should be {source}")
    if report.settings.get("threads") != 1:
        raise DeviceError(
            f"{report.model_name} was run on {report.settings.get('threads')} threads; the model is of one"
        )
