""".tflite files on LiteRT's interpreter, with XNNPACK where it takes an operator."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.runtimes.detect import require
from phonefit.device_bench.runtimes.runtime import Array, failed_run
from phonefit.device_bench.runtimes.specs import fixed_shape, with_layouts
from phonefit.models.errors import FileFormatError
from phonefit.models.spec import TensorSpec


class TfliteSession:
    """A loaded .tflite file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, path: Path, interpreter: Any) -> None:
        self._path = path
        self._interpreter = interpreter
        details = interpreter.get_input_details()
        self.inputs = with_layouts(path, tuple(_spec(detail, detail["shape"]) for detail in details))
        self.outputs = tuple(_spec(detail, detail["shape"]) for detail in interpreter.get_output_details())
        self._input_places = [detail["index"] for detail in details]
        self._output_places = [detail["index"] for detail in interpreter.get_output_details()]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference, copying inputs in and outputs out."""
        try:
            for place, array in zip(self._input_places, arrays, strict=True):
                self._interpreter.set_tensor(place, array)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise failed_run(self._path, "LiteRT", str(error)) from None
        return [self._interpreter.get_tensor(place) for place in self._output_places]


def start() -> None:
    """Import LiteRT's interpreter."""
    import ai_edge_litert.interpreter  # noqa: F401


def load(path: Path, threads: int) -> TfliteSession:
    """Load a .tflite file. A free batch size becomes 1.

    Raises:
        FileFormatError: it is not a .tflite model.
        DeviceError: LiteRT here lacks an operator, or an input size other than the batch is free.
    """
    from ai_edge_litert.interpreter import Interpreter

    require(path, "tflite")
    try:
        # the default operator resolver applies XNNPACK
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path}: LiteRT cannot read it: {error}") from None
    for detail in interpreter.get_input_details():
        shape = fixed_shape(path, detail["name"], [int(size) for size in detail["shape_signature"]])
        if shape != tuple(detail["shape"]):
            interpreter.resize_tensor_input(detail["index"], shape)
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DeviceError(f"{path}: LiteRT cannot prepare it: {error}") from None
    return TfliteSession(path, interpreter)


def versions() -> Mapping[str, str]:
    """Version of LiteRT."""
    return {"ai-edge-litert": version("ai-edge-litert")}


def _spec(detail: Mapping[str, Any], shape: Sequence[int]) -> TensorSpec:
    scales = detail["quantization_parameters"]["scales"]
    zero_points = detail["quantization_parameters"]["zero_points"]
    per_tensor = len(scales) == 1
    return TensorSpec(
        name=detail["name"],
        shape=tuple(int(size) for size in shape),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scales[0]) if per_tensor else None,
        zero_point=int(zero_points[0]) if per_tensor else None,
    )
