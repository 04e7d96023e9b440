"""Context: what is the same for every stage of a run, and typed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from phonefit.device_bench.report import Report
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.data.dataset import Side, Unreadable
from phonefit.models.data.split import Conflict
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.spec import Preprocess
from phonefit.models.targets import Targets
from phonefit.models.tasks.task import Floats, Task
from phonefit.pipeline.store import Store

if TYPE_CHECKING:
    import torch


class Progress(Protocol):
    """Shows how far a stage is. The command line draws bars; the default shows nothing."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator["Advance"]:
        """A stage with `total` steps, or None when unknown."""
        ...


class Advance(Protocol):
    """Called after each step of a stage."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` and show `note` behind the bar."""
        ...


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Yields a function that does nothing."""
        yield lambda steps=1, note="": None


class Pictures(Protocol):
    """The data set, split and resized once: what training, calibration and evaluation read."""

    labels: tuple[str, ...]
    preprocess: Preprocess
    names: Mapping[Side, tuple[str, ...]]
    """Side -> names of its pictures, in the order of the rows."""
    unreadable: tuple[Unreadable, ...]
    """Pictures that were skipped, with the reason."""
    conflicts: tuple[Conflict, ...]
    """Pictures that appear with several targets."""
    digest: str
    """Digest of the split, resized data: part of every stage key that reads it."""

    def pixels(self, side: Side) -> NDArray[np.uint8]:
        """RGB uint8 [N, height, width, 3], memory-mapped."""
        ...

    def targets(self, side: Side) -> Targets:
        """What is to be learned of each picture: [N] or [N, labels]."""
        ...

    def inputs(self, side: Side, start: int, stop: int) -> Floats:
        """Normalised rows start..stop as the model takes them: float32 [n, 3, height, width]."""
        ...

    def calibration(self, description: CalibrationSet) -> Floats:
        """Seeded sample of the training side, balanced where it has classes: float32 [n, 3, height, width]."""
        ...


class AskDevice(Protocol):
    """Asks the run's device what a candidate costs: converted for the recipe's first runtime, quantised as the recipe
    ends, and measured there. Answers are kept in the store.
    """

    @property
    def identity(self) -> Mapping[str, JsonValue]:
        """Device, runtime, quantisation and settings: part of the key of each stage that asks."""
        ...

    def __call__(self, candidate: Checkpoint) -> Report:
        """The report of one candidate.

        Raises:
            ConversionError: it cannot be converted.
            DeviceError, MeasurementError: it cannot be measured.
        """
        ...


@dataclass(frozen=True)
class Context:
    """Handed to every technique, converter and evaluation.

    Attributes:
        task: with what it took from the training side.
        log: file that takes the noise of converters and libraries.
        threads: for torch; one is fastest on a busy small machine.
        ask: for steps that aim at figures of a device; None where there is no device.
        task_key: tells results of one task from those of another; the task's name where it is None.
    """

    store: Store
    data: Pictures
    task: Task
    seed: int
    log: Path
    threads: int = 1
    torch_device: str = "cpu"
    progress: Progress = field(default_factory=SilentProgress)
    ask: AskDevice | None = None
    task_key: JsonValue = None

    @property
    def task_identity(self) -> JsonValue:
        """The task in the keys of the store."""
        return self.task.name if self.task_key is None else self.task_key

    def torch(self) -> "torch.device":
        """The torch device to train on."""
        import torch

        return torch.device(self.torch_device)
