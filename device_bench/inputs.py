"""The input of a measurement: fixed random values, or a person's own from a .npy file; and its outputs in a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.runtimes.runtime import Array, to_stored
from phonefit.models.spec import TensorSpec

# Wide integers are mostly indices into a table, of which only the first rows surely exist.
_INDEX_VALUES = 2


def make_inputs(specs: tuple[TensorSpec, ...], seed: int, input_file: Path | None = None) -> list[Array]:
    """One array for each input of a model, as stored: standard normal floats, 8-bit integers over their whole range,
    wider integers 0 or 1. `input_file` replaces the first; real values are quantised as the model's input asks.

    Raises:
        DeviceError: the file does not fit the first input.
    """
    random = np.random.default_rng(seed)
    arrays = [_random_array(spec, random) for spec in specs]
    if input_file is not None:
        arrays[0] = _from_file(input_file, specs[0])
    return arrays


def stored_bytes(array: Array) -> bytes:
    """The numbers of an array as files for runners hold them: raw, little-endian, in the order of its shape."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def save_outputs(arrays: Sequence[Array], target: Path, inputs: Sequence[Array] = ()) -> None:
    """Write the outputs of an inference, in stored form, to an .npz file: output_0, output_1, …; inputs likewise."""
    with target.open("wb") as stream:
        named = {f"output_{index}": array for index, array in enumerate(arrays)}
        named |= {f"input_{index}": array for index, array in enumerate(inputs)}
        np.savez(stream, allow_pickle=False, **named)


def _random_array(spec: TensorSpec, random: np.random.Generator) -> Array:
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return random.standard_normal(spec.shape).astype(kind)
    if kind.kind in "iu" and kind.itemsize == 1:
        limits = np.iinfo(kind)
        return random.integers(limits.min, limits.max, spec.shape, dtype=kind, endpoint=True)
    return random.integers(0, _INDEX_VALUES, spec.shape).astype(kind)


def _from_file(path: Path, spec: TensorSpec) -> Array:
    try:
        values: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DeviceError(f"{path}: not a readable .npy file: {error}") from None
    if values.shape != spec.shape:
        raise DeviceError(f"{path}: shape {list(values.shape)}, but input {spec.name!r} takes {list(spec.shape)}")
    if values.dtype == spec.dtype:
        return np.ascontiguousarray(values)
    if values.dtype.kind != "f":
        raise DeviceError(f"{path}: holds {values.dtype}; give {spec.dtype} or real values as float32")
    return np.ascontiguousarray(to_stored(values, spec))
