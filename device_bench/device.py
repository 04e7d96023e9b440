"""Device: something that can run a model file and be measured. One implementation a kind; `host` is this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, JsonValue

from phonefit.models.artifact import Runtime
from phonefit.models.errors import PhonefitError
from phonefit.models.record import Frozen


class DeviceError(PhonefitError):
    """A device that is missing, or refuses to do what was asked."""


class MeasurementError(DeviceError):
    """The measurement itself failed: a crash, a time-out, an unusable result. Exits with 3."""

    exit_code = 3


class DeviceInfo(Frozen):
    """Which device a figure belongs to. Figures of unlike devices are never compared.

    Attributes:
        kind: "host", "emulator", "adb" or "app".
        name: the processor or phone model.
        ram_bytes: memory of the device.
        details: whatever else identifies it (kernel, Android version, governor), by name.
    """

    kind: str
    name: str
    architecture: str
    cores: int
    ram_bytes: int
    operating_system: str
    details: Mapping[str, str] = {}

    def like(self, other: "DeviceInfo") -> bool:
        """Whether figures of the two may be compared."""
        return (self.kind, self.name, self.architecture, self.cores) == (
            other.kind,
            other.name,
            other.architecture,
            other.cores,
        )


class Job(Frozen):
    """One measurement.

    Attributes:
        model: path of the model file on this machine.
        repeats: timed inferences; with `duration_seconds`, the least number of them.
        duration_seconds: keep going until this much time has passed.
        memory_limit_bytes: enforced where the device can enforce one.
        seed: of the random inputs.
        input_file: .npy file with one input to use instead of random ones.
        output_file: .npz file to write the outputs of the last inference to, as output_0, output_1, …, in stored form;
            the Python runtimes of the host add the inputs, as input_0, ….
        cpu_mask: bit k allows core k; None leaves the choice to the device.
        energy: sample power too, where the device can; its timed inferences then fill the length of an idle baseline.
    """

    model: Path
    runtime: Runtime
    threads: int = Field(default=1, ge=1, le=64)
    warmups: int = Field(default=5, ge=0)
    repeats: int = Field(default=50, ge=1)
    duration_seconds: float | None = Field(default=None, gt=0)
    memory_limit_bytes: int | None = Field(default=None, gt=0)
    timeout_seconds: float = Field(default=300.0, gt=0)
    seed: int = 0
    input_file: Path | None = None
    output_file: Path | None = None
    cpu_mask: int | None = Field(default=None, gt=0)
    energy: bool = False


EnergySource = Literal["rail", "gauge", "modelled", "unavailable"]


class EnergyEstimate(Frozen):
    """Energy of one inference above idling.

    Attributes:
        uncertainty_microjoules: half of the 95 % confidence interval; None for a model, whose error nobody knows.
    """

    source: EnergySource
    microjoules: float
    uncertainty_microjoules: float | None
    note: str

    @property
    def above_idle(self) -> bool:
        """Whether it can be told apart from idling at all."""
        return self.uncertainty_microjoules is None or self.microjoules > self.uncertainty_microjoules


class RawRun(Frozen):
    """What one run gave, without interpretation.

    Attributes:
        load_nanoseconds: from the file on disk to a runtime that is ready for the first input.
        warmup_nanoseconds: the first inferences, kept apart.
        sample_nanoseconds: the timed inferences.
        baseline_bytes: peak resident memory (VmHWM) of a process with this runtime before it loads a model.
        peak_bytes: peak resident memory (VmHWM) of the process that ran the model.
        conditions_before: load average, clocks, temperature, battery: name -> value.
        counts: what was counted in each timed inference, name -> one number each. Names end in _instructions, _bytes
            or _misses, which is their unit; `instructions` is the sum.
        load_counts: the same for loading the model.
        latency_source: "modelled" when the times are estimates from counts, on a device that has no time of its own.
        latency_note: what modelled times are made from; "" for measured ones.
        memory_source: "counted" when the peak is the pages that the process touched and did not give back.
        memory_kind: "proportional" where both are a proportional set size (PSS), which counts a page that several
            processes share by its share.
        out_of_memory: the memory limit ended the process: there are no samples, and `peak_bytes` is how far it came.
        cgroup_peak_bytes: where the device can tell: peak use of program, file pages and kernel together (memory.peak).
        reference_before_nanoseconds: times of a fixed loop of arithmetic just before the warm-ups, by the same process;
            empty on devices whose time does not depend on what else goes on.
        reference_after_nanoseconds: the same just after the last inference.
        timed_from_seconds: when the first timed inference began, since the device booted (CLOCK_BOOTTIME).
        timed_until_seconds: end of the last one.
        energy: of one inference, where the job asked for it: "energy", in long runs "energy_first_minute" and
            "energy_last_minute" too.
        energy_note: why there is none although it was asked for.
        wrong_outputs: how its outputs differ from those that this machine gets, where the device compares them and they
            differ too much; "" otherwise.
    """

    load_nanoseconds: int
    warmup_nanoseconds: tuple[int, ...]
    sample_nanoseconds: tuple[int, ...]
    baseline_bytes: int
    peak_bytes: int
    conditions_before: Mapping[str, JsonValue] = {}
    conditions_after: Mapping[str, JsonValue] = {}
    versions: Mapping[str, str] = {}
    counts: Mapping[str, tuple[float, ...]] = {}
    load_counts: Mapping[str, float] = {}
    latency_source: Literal["measured", "modelled"] = "measured"
    latency_note: str = ""
    memory_source: Literal["measured", "counted"] = "measured"
    memory_kind: Literal["resident", "proportional"] = "resident"
    out_of_memory: bool = False
    cgroup_peak_bytes: int | None = None
    reference_before_nanoseconds: tuple[int, ...] = ()
    reference_after_nanoseconds: tuple[int, ...] = ()
    timed_from_seconds: float | None = None
    timed_until_seconds: float | None = None
    energy: Mapping[str, EnergyEstimate] = {}
    energy_note: str = ""
    wrong_outputs: str = ""


class Device(Protocol):
    """What the bench needs of a device. Use as: prepare, run as often as wanted, cleanup in any case."""

    limits_memory: bool
    """Whether it enforces a job's memory limit; those that cannot refuse such a job."""

    def info(self) -> DeviceInfo:
        """Identify the device."""
        ...

    def prepare(self) -> None:
        """Bring it into a state fit for measuring; does nothing where that is done already.

        Raises:
            DeviceError: it cannot be reached or its conditions forbid measuring.
        """
        ...

    def run(self, job: Job) -> RawRun:
        """Run one job in a fresh process.

        Raises:
            DeviceError: the model cannot be run there.
            MeasurementError: it should run but the measurement failed.
        """
        ...

    def cleanup(self) -> None:
        """Undo what `prepare` and `run` changed; safe to call twice."""
        ...
