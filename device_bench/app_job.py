"""What phonefit and the phone's app (android_demo/) say to each other: a job and its result, as JSON files.

The host pushes the files that a job names and the job itself to `JOBS`, starts `BENCHMARK` with the job's path, and
polls for the app's file results/ID.json. The app writes that file first with the status "running" and replaces it
atomically when it is done. A job is run once: started again with a job whose result is still "running" while no thread
of its own works on it, the app does not run it again but says how its earlier process ended: "out_of_memory", or an
error "crash".

Files of inputs and outputs hold raw little-endian numbers, as stored in the model, without a header. Names in a job and
in a result are exactly these; both sides refuse a schema number or a field that they do not know.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from phonefit.models.artifact import Runtime
from phonefit.models.record import Frozen, Record

APPLICATION = "org.phonefit.demo"
MAIN = f"{APPLICATION}/.MainActivity"
BENCHMARK = f"{APPLICATION}/.BenchmarkActivity"
LOG_TAG = "phonefit"
FOLDER = "/data/local/tmp/phonefit/app"
MODELS, JOBS, INPUTS = (f"{FOLDER}/{name}" for name in ("models", "jobs", "inputs"))
# In the APK: the runtimes that it is built with, as `AppRuntimes`. Read before it is installed, and by the app itself.
RUNTIMES_ASSET = "assets/phonefit_runtimes.json"

Status = Literal["running", "ok", "error", "out_of_memory"]
# job: unreadable or of another schema; file: one is missing or cannot be read; digest: one has another content; model:
# the runtime refuses the file; inference: it gave up while running; crash: an earlier process of this job ended without
# a word.
ErrorKind = Literal["job", "file", "digest", "model", "inference", "crash"]
Phase = Literal["idle", "run"]


def result_path(job_id: str) -> str:
    """Path of a job's result, relative to the app's own folder, where `run-as` begins."""
    return f"files/results/{job_id}.json"


class AppRuntimes(Record):
    """What an APK is built with: version of the app, and of each runtime by its name."""

    schema_number: int = 1
    app_version: str
    runtimes: Mapping[Runtime, str]


class AppInput(Frozen):
    """One input of the model, in the model's order. `path` is on the phone; dtype is numpy's name: float32, int8, …"""

    path: str
    sha256: str
    dtype: str
    shape: tuple[int, ...]


class AppExpected(AppInput):
    """What one output of the model should be, in the model's order.

    Attributes:
        tolerance: largest allowed |found - expected| / (largest expected - smallest expected), in stored numbers; 0 is
            exact. Where all expected numbers are equal the difference is taken as it is.
    """

    tolerance: float = Field(ge=0)


class AppEnergy(Frozen):
    """Reading the battery's gauge: for `idle_seconds` with nothing running, then for as long as inferences are timed.

    Attributes:
        seconds: the timed inferences go on for at least so long, in place of the job's own `seconds`.
        wait_for_unplug_seconds: how long the app waits, before anything else, until no power is connected; then it goes
            on all the same.
    """

    idle_seconds: float = Field(gt=0)
    seconds: float = Field(gt=0)
    interval_ms: int = Field(default=100, ge=10)
    wait_for_unplug_seconds: float = Field(default=0.0, ge=0)


class AppJob(Record):
    """One measurement by the app: energy's idle phase, load, reference loops, warm-ups, timed inferences, reference
    loops, comparison of the last outputs with what is expected, memory.

    Attributes:
        id: name of the job and of its result.
        model: path on the phone; its content has `sha256` and `bytes`.
        description: path of the artifact's JSON on the phone; None for a file that phonefit did not make.
        warmups: first inferences, timed apart.
        repeats: the least number of timed inferences.
        seconds: the timed inferences go on until so much time has passed, too.
        reference: how often a fixed loop of arithmetic of about 5 ms is timed before the warm-ups, and again after the
            last inference, on the thread that runs them: a slower loop tells of a slower clock.
        expected: may be empty: then nothing is compared.
        energy: None: the gauge is not read.
        memory: whether PSS is read: before and after the load, and its peak in a few more inferences after the timed
            ones, since reading it disturbs them.
    """

    schema_number: int = 1
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    model: str
    description: str | None = None
    sha256: str
    bytes: int = Field(gt=0)
    runtime: Runtime
    threads: int = Field(default=1, ge=1, le=64)
    warmups: int = Field(default=5, ge=0)
    repeats: int = Field(default=50, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    reference: int = Field(default=0, ge=0)
    inputs: tuple[AppInput, ...] = Field(min_length=1)
    expected: tuple[AppExpected, ...] = ()
    energy: AppEnergy | None = None
    memory: bool = True


class AppError(Frozen):
    """Why a job has no figures."""

    kind: ErrorKind
    message: str


class AppDevice(Frozen):
    """The phone, by android.os.Build and its like. Empty where it does not tell.

    Attributes:
        soc: Build.SOC_MANUFACTURER and SOC_MODEL (API 31), else Build.HARDWARE.
        abi: the ABI that the app runs as.
        sdk: the API level.
    """

    manufacturer: str
    model: str
    soc: str
    abi: str
    sdk: int
    android_version: str
    fingerprint: str
    cores: int
    ram_bytes: int


class AppMemory(Frozen):
    """Proportional set size of the app's process (Debug.getPss), in bytes."""

    before_load_bytes: int
    after_load_bytes: int
    peak_bytes: int


class AppGaugeSample(Frozen):
    """One reading of BatteryManager; None for what the phone does not tell.

    Attributes:
        elapsed_ms: SystemClock.elapsedRealtime.
        current_ua: BATTERY_PROPERTY_CURRENT_NOW as it is: its sign and unit differ by phone.
        charge_uah: BATTERY_PROPERTY_CHARGE_COUNTER.
        voltage_mv: EXTRA_VOLTAGE of ACTION_BATTERY_CHANGED.
        plugged: EXTRA_PLUGGED: 0 no power is connected, else which (1 AC, 2 USB, 4 wireless, 8 dock).
    """

    elapsed_ms: int
    current_ua: int | None = None
    charge_uah: int | None = None
    voltage_mv: int | None = None
    plugged: int
    phase: Phase


class AppCorrectness(Frozen):
    """The last outputs against the expected ones.

    Attributes:
        max_difference: the largest over all outputs, measured as `AppExpected.tolerance` is.
        cosine: a . b / (|a| |b|) of stored numbers, the smallest over all outputs; 1 where both are zero.
        passed: each output is within its tolerance, and has no number that is not finite.
    """

    max_difference: float
    cosine: float
    passed: bool


class AppResult(Record):
    """What the app says about a job.

    Attributes:
        error: there when the status is "error", and in an "out_of_memory" where something is known.
        timed_from_ns: SystemClock.elapsedRealtimeNanos when the first timed inference began.
        timed_until_ns: the same at the end of the last one.
        memory: None where the job did not ask for it.
        thermal_before: PowerManager.getCurrentThermalStatus, 0 (none) to 6 (shutdown); None before API 29.
        correctness: None where the job expects nothing.
    """

    schema_number: int = 1
    job_id: str
    status: Status
    error: AppError | None = None
    app_version: str
    runtimes: Mapping[Runtime, str]
    device: AppDevice
    load_ns: int | None = None
    warmup_ns: tuple[int, ...] = ()
    sample_ns: tuple[int, ...] = ()
    reference_before_ns: tuple[int, ...] = ()
    reference_after_ns: tuple[int, ...] = ()
    timed_from_ns: int | None = None
    timed_until_ns: int | None = None
    memory: AppMemory | None = None
    thermal_before: int | None = None
    thermal_after: int | None = None
    gauge: tuple[AppGaugeSample, ...] = ()
    correctness: AppCorrectness | None = None
