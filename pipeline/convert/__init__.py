"""Converters by runtime. Each is imported when used: it pulls in torch and its runtime's tools.

A converter is `convert(checkpoint, context, destination, name) -> Artifact`: it writes `destination/NAME.SUFFIX` and
its description `NAME.SUFFIX.json`, and leaves the checkpoint as it is.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from phonefit.models.artifact import SUFFIXES, Artifact, Runtime
from phonefit.models.quantisation import precision_of
from phonefit.pipeline.errors import UnknownNameError

if TYPE_CHECKING:
    from phonefit.models.checkpoint import Checkpoint
    from phonefit.pipeline.context import Context

Convert = Callable[["Checkpoint", "Context", Path, str], Artifact]

CONVERTERS: dict[Runtime, str] = {
    "executorch": "phonefit.pipeline.convert.executorch",
    "tflite": "phonefit.pipeline.convert.tflite",
    "onnx": "phonefit.pipeline.convert.onnx",
}
# Packages whose version shapes a converted file.
TOOLS: dict[Runtime, tuple[str, ...]] = {
    "executorch": ("torch", "torchao", "executorch"),
    "tflite": ("torch", "torchao", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"),
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
}


def converter(runtime: str) -> Convert:
    """The function that writes files of this runtime.

    Raises:
        UnknownNameError: no converter of that name.
    """
    for known, place in CONVERTERS.items():
        if known == runtime:
            return cast(Convert, import_module(place).convert)
    raise UnknownNameError("runtime", runtime, CONVERTERS)


def file_format(checkpoint: "Checkpoint", runtime: Runtime) -> str:
    """What messages call the file that is made of a checkpoint, for example ".pte int8"."""
    return f"{SUFFIXES[runtime]} {precision_of(checkpoint.info.quantisation)}"


def tools(runtime: Runtime) -> dict[str, str]:
    """Versions of the packages that shape a converted file; imports none of them."""
    return {name: version(name) for name in TOOLS[runtime]}
