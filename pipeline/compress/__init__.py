"""Compression techniques by name. Each is one frozen config, in `recipe`, and one function."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import UnknownNameError
from phonefit.pipeline.recipe_steps import DecomposeConfig, DistilConfig, PruneConfig, QuantiseConfig

ConfigT = TypeVar("ConfigT", contravariant=True)


class Technique(Protocol[ConfigT]):
    """Makes another checkpoint from one that it never changes."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        config: ConfigT,
        context: Context,
        destination: Path,
        parent: Checkpoint,
        resume: Path | None = None,
    ) -> Checkpoint:
        """Write the new checkpoint into `destination`.

        `parent` is the fine-tuned checkpoint, the teacher; `resume` keeps the state of a training while it runs.
        """
        ...


def _prune() -> Technique[PruneConfig]:
    from phonefit.pipeline.compress.prune import prune

    return prune


def _decompose() -> Technique[DecomposeConfig]:
    from phonefit.pipeline.compress.decompose import decompose

    return decompose


def _distil() -> Technique[DistilConfig]:
    from phonefit.pipeline.compress.distil import distil

    return distil


def _quantise() -> Technique[QuantiseConfig]:
    from phonefit.pipeline.compress.quantise import quantise

    return quantise


# Name -> function that imports the technique: nothing heavy is loaded before a step runs.
TECHNIQUES: dict[
    str,
    Callable[[], Technique[PruneConfig]]
    | Callable[[], Technique[DecomposeConfig]]
    | Callable[[], Technique[DistilConfig]]
    | Callable[[], Technique[QuantiseConfig]],
] = {"prune": _prune, "decompose": _decompose, "distil": _distil, "quantise": _quantise}


def load_technique(name: str) -> Technique[object]:
    """The technique of that name. It takes the config of the same name only.

    Raises:
        UnknownNameError: with the names that exist.
    """
    if name not in TECHNIQUES:
        raise UnknownNameError("technique", name, TECHNIQUES)
    return TECHNIQUES[name]()  # type: ignore[return-value]  # the recipe pairs a config with its technique's name
