"""Runtime: how to load a model file and run it in this process. One file per runtime beside this one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from phonefit.device_bench.device import MeasurementError
from phonefit.models.spec import TensorSpec

Array = NDArray[Any]


class Session(Protocol):
    """A loaded model. Not thread-safe."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference on arrays as stored in the file (quantised inputs are quantised by the caller).

        Args:
            arrays: one for each of `inputs`, with its shape and dtype.

        Returns:
            One array for each of `outputs`; copies that stay valid after the next call.

        Raises:
            MeasurementError: the runtime gave up on this input; see `failed_run`.
        """
        ...


class RuntimeModule(Protocol):
    """What each file beside this one offers as module functions."""

    def start(self) -> None:
        """Import the runtime, as `load` would: apart, so that load time and memory can be told from the runtime's own.

        Raises:
            DeviceError: the runtime is not usable here.
        """
        ...

    def load(self, path: Path, threads: int) -> Session:
        """Load a model file.

        Raises:
            FileFormatError: it is not a model of this runtime.
            DeviceError: it needs something that this runtime here lacks.
        """
        ...

    def versions(self) -> Mapping[str, str]:
        """Package name -> version of what runs the model."""
        ...


def failed_run(path: Path, runtime: str, reason: str) -> MeasurementError:
    """The error for an inference that the runtime gave up."""
    return MeasurementError(
        f"{path}: {runtime} failed while running it: {reason}; the file may be damaged, made for another version of "
        "the runtime, or not made for such inputs: convert it again, or try another input"
    )


def to_stored(values: Array, spec: TensorSpec) -> Array:
    """Real values (float32) to what the file's input stores: stored = round(real / scale) + zero_point, saturated."""
    import numpy as np

    if spec.scale is None:
        return values.astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    stored = np.round(values / spec.scale) + (spec.zero_point or 0)
    return np.clip(stored, limits.min, limits.max).astype(spec.dtype)


def to_real(stored: Array, spec: TensorSpec) -> Array:
    """What the file's output stores to real values (float32): real = scale * (stored - zero_point)."""
    import numpy as np

    if spec.scale is None:
        return stored.astype(np.float32)
    return ((stored.astype(np.float32) - (spec.zero_point or 0)) * spec.scale).astype(np.float32)
