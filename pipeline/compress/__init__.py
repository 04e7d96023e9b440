"""Compression techniques by name. Each is one frozen config, in `recipe`, and one function."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import UnknownNameError
from phonefit.pipeline.recipe import StepConfig


class Technique[Config](Protocol):
    """Makes a smaller or better checkpoint from another one, which it never changes."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        config: Config,
        context: Context,
        destination: Path,
        parent: Checkpoint,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Write the new checkpoint into `destination`.

        `parent` is the fine-tuned checkpoint, the teacher; `resume` keeps the state of a training that is interrupted.
        """
        ...
