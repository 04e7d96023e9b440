""".onnx files on ONNX Runtime's CPU provider."""

import os
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

_ONLY_ERRORS = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


class OnnxSession:
    """A loaded .onnx file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, path: Path, session: Any) -> None:
        self._path = path
        self._session = session
        self.inputs = with_layouts(
            path,
            tuple(
                TensorSpec(name=node.name, shape=fixed_shape(path, node.name, node.shape), dtype=_dtype(path, node))
                for node in session.get_inputs()
            ),
        )
        self.outputs = tuple(
            TensorSpec(name=node.name, shape=_output_shape(node.shape), dtype=_dtype(path, node))
            for node in session.get_outputs()
        )
        self._names = [spec.name for spec in self.inputs]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference; ONNX Runtime reads the arrays in place and returns fresh ones."""
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        try:
            outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        except (errors.Fail, errors.InvalidArgument, errors.NotImplemented, errors.RuntimeException) as error:
            raise failed_run(self._path, "ONNX Runtime", str(error)) from None
        return [np.asarray(output) for output in outputs]


def without_telemetry() -> None:
    """Keep ONNX Runtime from sending usage data, which it does by default; call before each first import of it.

    https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def start() -> None:
    """Import ONNX Runtime."""
    without_telemetry()
    import onnxruntime  # noqa: F401


def load(path: Path, threads: int) -> OnnxSession:
    """Load a .onnx file: operators one after the other, each on `threads` threads. A free batch size becomes 1.

    Raises:
        FileFormatError: it is not a .onnx model.
        DeviceError: ONNX Runtime here lacks an operator, or a tensor is of a kind that cannot be fed.
    """
    without_telemetry()
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    require(path, "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ONLY_ERRORS
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (errors.InvalidProtobuf, errors.InvalidGraph, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: ONNX Runtime cannot read it: {error}") from None
    except (
        errors.Fail,
        errors.NotImplemented,
        errors.InvalidArgument,
        errors.NoSuchFile,
        errors.RuntimeException,
    ) as e:
        raise DeviceError(f"{path}: ONNX Runtime {version('onnxruntime')} cannot prepare it: {e}") from None
    return OnnxSession(path, session)


def versions() -> Mapping[str, str]:
    """Version of ONNX Runtime."""
    return {"onnxruntime": version("onnxruntime")}


def _dtype(path: Path, node: Any) -> str:
    if node.type not in _DTYPES:
        raise DeviceError(f"{path}: {node.name!r} is a {node.type}; phonefit runs models on number tensors only")
    return _DTYPES[node.type]


def _output_shape(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """A free batch size becomes 1; another free size, known only after running, becomes -1."""
    sizes = [size if isinstance(size, int) else None for size in shape]
    return tuple((1 if place == 0 else -1) if size is None else size for place, size in enumerate(sizes))
