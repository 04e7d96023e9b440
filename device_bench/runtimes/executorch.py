""".pte files on ExecuTorch's runtime with its portable, optimised and quantised kernels and the XNNPACK backend.

ExecuTorch's Python binding passes tensors as PyTorch's, so loading it loads PyTorch (1 s, about 220 MB resident). That
is part of the process before the model is loaded, not of the model: see `phonefit.device_bench.worker` on peak memory.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.runtimes.detect import require
from phonefit.device_bench.runtimes.runtime import Array, failed_run
from phonefit.device_bench.runtimes.specs import with_layouts
from phonefit.models.errors import FileFormatError
from phonefit.models.spec import TensorSpec

# executorch/schema/scalar_type.fbs; the types that numpy has
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    27: "uint16",
    28: "uint32",
    29: "uint64",
}
# executorch/runtime/core/error.h; those that a person can act upon
_REASONS = {
    0x10: "not supported",
    0x12: "invalid argument: made for another ExecuTorch version, or damaged",
    0x14: "an operator is missing from this runtime",
    0x20: "a backend that it needs is missing from this runtime",
    0x21: "out of memory",
    0x23: "invalid program: damaged, or made for another ExecuTorch version",
    0x24: "its separate data file (.ptd) is missing",
    0x30: "made for another version of its backend",
}


class ExecutorchSession:
    """A loaded .pte file."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, path: Path, program: Any, method: Any, name: str) -> None:
        meta = method.method_meta()
        self._path = path
        self._program = program  # owns the memory that the method works in
        self._method = method
        self._from_numpy = sys.modules["torch"].from_numpy
        self.inputs = with_layouts(
            path, tuple(_spec(path, name, "input", place, meta) for place in range(meta.num_inputs()))
        )
        self.outputs = tuple(_spec(path, name, "output", place, meta) for place in range(meta.num_outputs()))

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """One inference; inputs are copied in and outputs cloned by the binding."""
        tensors = [self._from_numpy(np.ascontiguousarray(array)) for array in arrays]
        try:
            outputs = self._method(tensors)
        except RuntimeError as error:
            raise failed_run(self._path, "ExecuTorch", _explain(error)) from None
        return [np.asarray(output) for output in outputs]


# ExecuTorch has one thread pool a process, and a loaded XNNPACK model keeps a pointer to it: replacing the pool under a
# living session would leave that pointer dangling, so the living ones are known here.
_living: "WeakSet[ExecutorchSession]" = WeakSet()


def start() -> None:
    """Load the binding, and PyTorch with it."""
    _binding()


def load(path: Path, threads: int) -> ExecutorchSession:
    """Load a .pte file and its method `forward`, or its first method where there is none of that name.

    Raises:
        FileFormatError: it is not a .pte program.
        DeviceError: an operator or backend is missing here, or the thread count cannot be had.
    """
    require(path, "executorch")
    binding = _binding()
    _set_threads(binding, threads)
    try:
        program = binding._load_program(str(path), program_verification=binding.Verification.InternalConsistency)
    except RuntimeError as error:
        raise FileFormatError(f"{path}: ExecuTorch cannot read it: {_explain(error)}") from None
    names = [program.get_method_name(place) for place in range(program.num_methods())]
    if not names:
        raise FileFormatError(f"{path}: the program has no method to run")
    name = "forward" if "forward" in names else names[0]
    try:
        method = program.load_method(name)
    except RuntimeError as error:
        raise DeviceError(f"{path}: ExecuTorch cannot prepare {name!r}: {_explain(error)}") from None
    session = ExecutorchSession(path, program, method, name)
    _living.add(session)
    return session


def versions() -> Mapping[str, str]:
    """Versions of ExecuTorch and of the PyTorch whose libraries its binding uses."""
    return {"executorch": version("executorch"), "torch": version("torch")}


def _binding() -> Any:
    """The extension module behind `executorch.runtime`, without that package's import of the exporter (4 s, 140 MB).

    Importing the quantised kernels first registers them, which models with int8 edges need, and loads PyTorch, whose
    libraries the extension module links to.
    """
    try:
        import_module("executorch.kernels.quantized")
        return import_module("executorch.extension.pybindings._C")
    except ImportError as error:
        raise DeviceError(f"ExecuTorch's Python binding does not load: {error}; reinstall executorch") from None


def _set_threads(binding: Any, threads: int) -> None:
    present = binding._threadpool_get_thread_count()
    if present == threads:
        return
    if _living:
        raise DeviceError(
            f"ExecuTorch runs on {present} thread(s) in this process and a model is loaded; "
            f"{threads} thread(s) need a fresh process, or drop the loaded session first"
        )
    binding._unsafe_reset_threadpool(threads)
    present = binding._threadpool_get_thread_count()
    if present != threads:
        raise DeviceError(f"ExecuTorch was asked for {threads} thread(s) and gives {present}; ask for {present}")


def _spec(path: Path, method: str, side: str, place: int, meta: Any) -> TensorSpec:
    try:
        info = meta.input_tensor_meta(place) if side == "input" else meta.output_tensor_meta(place)
    except (RuntimeError, IndexError) as error:
        raise DeviceError(f"{path}: {side} {place} of {method!r} is no tensor ({_explain(error)})") from None
    if info.dtype() not in _DTYPES:
        raise DeviceError(f"{path}: {side} {place} of {method!r} has scalar type {info.dtype()}, which numpy lacks")
    # a .pte keeps no names of inputs and outputs
    return TensorSpec(name=f"{side}_{place}", shape=tuple(info.sizes()), dtype=_DTYPES[info.dtype()])


def _explain(error: Exception) -> str:
    code = re.search(r"0x:?([0-9a-fA-F]+)", str(error))
    reason = _REASONS.get(int(code[1], 16)) if code else None
    return f"{reason} ({error})" if reason else str(error)
