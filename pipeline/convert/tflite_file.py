"""Makes a .tflite file smaller without changing what it computes: equal vectors are stored once.

A quantised file holds a scale and a 64-bit zero point for each output channel of each weight and each bias. The zero
points are all zero, and a flatbuffer may point to one vector from many places; the converter writes each anew.
"""

from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of the data of buffers: `force_align: 16` in tflite's schema.fbs; kernels read them in place


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that stores equal vectors of numbers once, and aligns bytes as the schema demands."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._known: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: "NDArray[Any]") -> int:
        """Offset of a vector with this content."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._known:
            if x.dtype.itemsize == 1:
                self.Prep(_ALIGNMENT, x.size)
            self._known[key] = super().CreateNumpyVector(x)
        return self._known[key]


def float_constants(content: bytes) -> "list[NDArray[np.float32]]":
    """The float32 constants of a .tflite file, flat."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    found = []
    for place in range(model.SubgraphsLength()):
        graph = model.Subgraphs(place)
        tensors = (graph.Tensors(index) for index in range(graph.TensorsLength()))
        buffers = [model.Buffers(tensor.Buffer()) for tensor in tensors if tensor.Type() == schema.TensorType.FLOAT32]
        found += [buffer.DataAsNumpy().view(np.float32) for buffer in buffers if buffer.DataLength()]
    return found


def compacted(content: bytes) -> bytes:
    """The same model with equal vectors shared: bytes of a .tflite file in, bytes of one out."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            parameters = tensor.quantization
            if parameters is not None and parameters.zeroPoint is not None:
                parameters.zeroPoint = np.asarray(parameters.zeroPoint, dtype=np.int64)
    builder = _SharingBuilder(len(content))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())
