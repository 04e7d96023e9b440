"""Where a search looks at a trial that is not finished, and may end it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phonefit.device_bench.device import Device
from phonefit.models.artifact import Artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.tasks.task import Metrics
from phonefit.pipeline.context import Context
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import Parity, Variant, file_name


@dataclass(frozen=True)
class JudgedFile:
    """A converted file whose quality is known, before it is measured. The fields are those of FileResult.

    Attributes:
        source: what it was converted from.
        path: of the model file.
    """

    variant: Variant
    source: Checkpoint
    artifact: Artifact
    path: Path
    parity: Parity
    quality: Metrics
    quality_drop: float
    planned_memory: int | None

    @property
    def name(self) -> str:
        """That which the measured file will have."""
        return file_name(self.variant, self.artifact)


class TrialChecks(Protocol):
    """Called by `run_trial` between its stages. Each call may raise TrialEndedError; none changes a figure."""

    def before_training(self, recipe: Recipe, context: Context, device: Device) -> None:
        """The recipe is checked, nothing has been computed."""
        ...

    def after_epoch(self, qualities: Sequence[float]) -> None:
        """An epoch of fine-tuning is over: quality on the validation side before training, after epoch 1, 2, …, so
        that more is better.

        Called for each epoch in turn, also for those that an earlier process computed.
        """
        ...

    def before_measuring(self, recipe: Recipe, files: Sequence[JudgedFile]) -> None:
        """All files are converted and judged, none is measured."""
        ...
