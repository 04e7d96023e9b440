"""Runtimes by name. The modules are imported when asked for: each pulls in its runtime."""

from importlib import import_module
from typing import cast

from phonefit.device_bench.runtimes.runtime import RuntimeModule
from phonefit.models.artifact import Runtime
from phonefit.models.errors import UnknownNameError

RUNTIMES: dict[Runtime, str] = {
    "executorch": "phonefit.device_bench.runtimes.executorch",
    "tflite": "phonefit.device_bench.runtimes.tflite",
    "onnx": "phonefit.device_bench.runtimes.onnx",
}


def runtime_module(name: str) -> RuntimeModule:
    """The module that loads and runs the files of one runtime.

    Raises:
        UnknownNameError: no runtime of that name.
    """
    for known, place in RUNTIMES.items():
        if known == name:
            return cast(RuntimeModule, import_module(place))
    raise UnknownNameError("runtime", name, RUNTIMES)
