"""What a trial gives: quality, reports, sizes and violations of each file. The search learns from exactly this."""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from phonefit.device_bench.report import Report
from phonefit.models.artifact import Artifact
from phonefit.models.record import Frozen, Record
from phonefit.pipeline.result_plan import PlanResult

Variant = Literal["original", "compressed"]


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


class Violation(Frozen):
    """One limit of the budget that a file misses.

    Attributes:
        figure: the file's value, in `unit`.
        excess: figure / limit - 1: by how much it is missed.
        remedy: what would help.
    """

    limit_name: str
    limit: float
    figure: float
    unit: str
    excess: float
    remedy: str


class FileResult(Frozen):
    """One converted file of a trial.

    Attributes:
        path: of the model file, relative to the runs folder.
        checkpoint: digest of the checkpoint that it was converted from.
        quality: metrics of this file on its own runtime, on the validation side.
        test_quality: the same on the test side, for the files that are shown at the end.
        quality_drop: original checkpoint's quality (validation) minus this file's.
        report: the measurement on the recipe's device.
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
    report: Report
    planned_memory: int | None = None
    violations: tuple[Violation, ...] = ()

    @property
    def name(self) -> str:
        """Short name for tables: variant, runtime and precision."""
        return f"{self.variant} {self.artifact.runtime} {self.artifact.precision}"


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
        files: in the order of conversion.
        unreadable: pictures that were skipped, with the reason.
        best: index into `files` of the best file that fits the budget, or None.
        plan: how the compression steps were found, where the recipe asks for a plan.
    """

    schema_number: int = 1
    recipe: Mapping[str, JsonValue]
    recipe_digest: str
    quality_name: str
    checkpoint_metrics: Mapping[str, Mapping[str, float]]
    files: tuple[FileResult, ...]
    best: int | None
    stages: tuple[StageUse, ...]
    unreadable: tuple[str, ...] = ()
    plan: PlanResult | None = None
    notes: tuple[str, ...] = ()
