"""What the bytes of a model file are spent on, as far as the file itself tells."""

from collections.abc import Callable
from pathlib import Path

from phonefit.models.artifact import Runtime


def sections_of(path: Path, runtime: Runtime) -> dict[str, int]:
    """Bytes by section; they add up to the file's size.

    "weights" is the constant data (weights, biases; for .onnx also scales and zero points, which are constants there
    too), "graph" the rest: operators, shapes, names and, for .pte and .tflite, scales and zero points.
    """
    weights = _WEIGHTS[runtime](path)
    return {"weights": weights, "graph": path.stat().st_size - weights}


def _executorch_weights(path: Path) -> int:
    from executorch.exir._serialize._program import deserialize_pte_binary

    content = deserialize_pte_binary(path.read_bytes())
    constants = sum(len(buffer.storage) for buffer in content.program.constant_buffer)
    named = content.named_data
    return constants + (sum(len(buffer) for buffer in named.buffers) if named is not None else 0)


def _tflite_weights(path: Path) -> int:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes())
    return sum(model.Buffers(place).DataLength() for place in range(model.BuffersLength()))


def _onnx_weights(path: Path) -> int:
    import onnx

    return sum(len(tensor.raw_data) for tensor in onnx.load(str(path)).graph.initializer)


_WEIGHTS: dict[Runtime, Callable[[Path], int]] = {
    "executorch": _executorch_weights,
    "tflite": _tflite_weights,
    "onnx": _onnx_weights,
}
