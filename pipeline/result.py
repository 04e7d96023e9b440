"""What a trial gives: quality, reports, sizes and violations of each file. The search learns from exactly this."""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue, SerializerFunctionWrapHandler, model_serializer

from phonefit.device_bench.report import Report
from phonefit.models.artifact import Artifact
from phonefit.models.record import Frozen, Record
from phonefit.models.tasks.task import Better, merit_of
from phonefit.pipeline.result_plan import PlanResult

Variant = Literal["original", "compressed"]


def file_name(variant: Variant, artifact: Artifact) -> str:
    """Short name of a file for tables: variant, runtime and precision."""
    return f"{variant} {artifact.runtime} {artifact.precision}"


class Parity(Frozen):
    """How close a converted file is to its parent, on real samples.

    Attributes:
        cosine: cosine similarity of all samples' outputs, taken as one vector.
        snr_db: signal to noise ratio over all outputs, in dB; None when there is no noise at all.
        agreement: share of samples with the same decision.
    """

    samples: int
    cosine: float
    snr_db: float | None
    agreement: float


class ConvertedFile(Frozen):
    """One file made by `phonefit convert`."""

    artifact: Artifact
    parity: Parity


class OnDevices(Frozen):
    """Something of which only measurements on several devices have all fields: on one they are not written."""

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        written: dict[str, JsonValue] = handler(self)
        return {name: value for name, value in written.items() if value or name not in ("device", "further_reports")}


class Violation(OnDevices):
    """One limit of the budget that a file misses.

    Attributes:
        figure: the file's value, in `unit`.
        excess: figure / limit - 1: by how much it is missed.
        remedy: what would help.
        device: of several, the one that misses it most; "" where the device makes no difference.
    """

    limit_name: str
    limit: float
    figure: float
    unit: str
    excess: float
    remedy: str
    device: str = ""


class FileResult(OnDevices):
    """One converted file of a trial.

    Attributes:
        path: of the model file, relative to the runs folder.
        checkpoint: digest of the checkpoint that it was converted from.
        quality: metrics of this file on its own runtime, on the validation side.
        test_quality: the same on the test side, for the files that are shown at the end.
        quality_drop: what was lost of the original checkpoint's quality (validation); see `drop_of` of the tasks.
        drop_is_growth: the quality is an error, and the drop its growth.
        report: the measurement on the recipe's device; of several, on the first.
        further_reports: those on the others, in the order of the recipe.
        planned_memory: bytes of activations by the file's own memory plan, a static estimate beside the measured peak;
            None where the format has no plan.
    """

    variant: Variant
    artifact: Artifact
    path: str
    checkpoint: str
    parity: Parity
    quality: Mapping[str, float]
    test_quality: Mapping[str, float] | None = None
    quality_drop: float
    drop_is_growth: bool = False
    report: Report
    further_reports: tuple[Report, ...] = ()
    planned_memory: int | None = None
    violations: tuple[Violation, ...] = ()

    @property
    def reports(self) -> tuple[Report, ...]:
        """The measurements, in the order of the recipe's devices."""
        return (self.report, *self.further_reports)

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against any of the measurements."""
        return all(report.trusted for report in self.reports)

    @property
    def p90_milliseconds(self) -> float:
        """p90 latency on the slowest device."""
        return max(report.p90_milliseconds() for report in self.reports)

    @property
    def name(self) -> str:
        """Short name for tables: variant, runtime and precision."""
        return file_name(self.variant, self.artifact)


class StageUse(Frozen):
    """A stage that this trial needed; `reused` means that it was in the store."""

    stage: str
    key: str
    reused: bool
    seconds: float


class TrialResult(Record):
    """Content of trial.json.

    Attributes:
        quality_name: the metric that counts, a key of each file's `quality`.
        quality_better: whether more of it is better, or less.
        quality_unit: empty for a share.
        baseline: the task's best answer without looking at a picture, in words, and its quality on the validation side.
        quality_before: of the network before fine-tuning, on the validation side; None where it is not known.
        files: in the order of conversion.
        unreadable: pictures that were skipped, with the reason.
        best: index into `files` of the best file that fits the budget, or None.
        plan: how the compression steps were found, where the recipe asks for a plan.
    """

    schema_number: int = 1
    recipe: Mapping[str, JsonValue]
    recipe_digest: str
    quality_name: str
    quality_better: Better = "higher"
    quality_unit: str = ""
    baseline: tuple[str, float] | None = None
    quality_before: float | None = None
    checkpoint_metrics: Mapping[str, Mapping[str, float]]
    files: tuple[FileResult, ...]
    best: int | None
    stages: tuple[StageUse, ...]
    unreadable: tuple[str, ...] = ()
    plan: PlanResult | None = None
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> FileResult:
        """The best file; where none fits the budget, the last."""
        return self.files[-1 if self.best is None else self.best]

    def merit(self, metrics: Mapping[str, float]) -> float:
        """The quality among these metrics as a number of which more is better."""
        return merit_of(self.quality_better, metrics[self.quality_name])
