"""Static estimates of the memory that activations need, from the file alone: to show beside the measured peak.

They know nothing of the runtime's own code, of weights that it repacks, or of what a delegate allocates for itself, so
the measured peak is larger; what counts for a budget is that.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flatbuffers import encode, number_types
from flatbuffers.table import Table

from phonefit.models.artifact import Runtime
from phonefit.pipeline.convert.tflite_file import unpacked

_ALIGNMENT = 64  # of tensors in LiteRT's arena (kDefaultTensorAlignment)
# Fields of executorch's schema/program.fbs.
_EXECUTION_PLAN, _NON_CONST_BUFFER_SIZES = 1, 8
# Bytes of one element, by the name of the schema's TensorType; those that are not here do not come up in activations.
_SIZES = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "UINT8": 1, "INT64": 8, "BOOL": 1, "INT16": 2, "INT8": 1}


class Block(NamedTuple):
    """Memory that is needed from one operator to another, both included."""

    first: int
    last: int
    size: int


def planned_memory(path: Path, runtime: Runtime) -> int | None:
    """Bytes of activations; None for a format whose file does not tell.

    .pte: the buffers of ExecuTorch's memory plan. .tflite: the arena that LiteRT's planner would lay out for its
    built-in kernels. .onnx: ONNX Runtime plans when it loads.
    """
    planner = _PLANNERS.get(runtime)
    return None if planner is None else planner(path)


def _executorch(path: Path) -> int:
    """Read without the executorch package, whose import takes seconds."""
    content = path.read_bytes()
    program = Table(content, encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))
    plans = program.Offset(_slot(_EXECUTION_PLAN))
    total = 0
    for number in range(program.VectorLen(plans)):
        plan = Table(content, program.Indirect(program.Vector(plans) + number * 4))
        sizes = plan.Offset(_slot(_NON_CONST_BUFFER_SIZES))
        # the first entry stands for constants
        places = range(1, plan.VectorLen(sizes)) if sizes else ()
        total += sum(plan.Get(number_types.Int64Flags, plan.Vector(sizes) + place * 8) for place in places)
    return total


def _slot(field: int) -> int:
    """Where a flatbuffer's table keeps the offset of a field."""
    return 4 + 2 * field


def _tflite(path: Path) -> int:
    model = unpacked(path.read_bytes())
    return arena_size(_blocks(model))


_PLANNERS: dict[Runtime, Callable[[Path], int]] = {"executorch": _executorch, "tflite": _tflite}


def _blocks(model: Any) -> list[Block]:
    """Lifetimes of the tensors of the first subgraph that are no constants."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    graph = model.subgraphs[0]
    end = len(graph.operators)
    first: dict[int, int] = {int(place): 0 for place in graph.inputs}
    last: dict[int, int] = {int(place): end for place in graph.outputs}
    for number, operator in enumerate(graph.operators):
        for place in map(int, operator.outputs):
            first.setdefault(place, number)
            last.setdefault(place, number)
        for place in map(int, operator.inputs):
            if place >= 0:
                last[place] = max(number, last.get(place, 0))
    blocks = []
    for place, begin in first.items():
        tensor = graph.tensors[place]
        elements = math.prod(int(size) for size in tensor.shape) if tensor.shape is not None else 1
        size = math.ceil(elements * _SIZES[names[tensor.type]] / _ALIGNMENT) * _ALIGNMENT
        blocks.append(Block(begin, last.get(place, begin), size))
    return blocks


def arena_size(blocks: Sequence[Block]) -> int:
    """Bytes of one arena for all blocks, those that live at the same time apart.

    Greedy by size, as LiteRT does (Pisarchyk and Lee, 2020, arXiv 2001.03288): the largest first, each into the
    smallest gap that holds it among those placed before that live at the same time, else behind them.
    """
    placed: list[tuple[int, Block]] = []
    for block in sorted(blocks, key=lambda one: -one.size):
        rivals = sorted(
            (offset, other.size) for offset, other in placed if other.first <= block.last and block.first <= other.last
        )
        best, smallest, end = None, math.inf, 0
        for offset, size in rivals:
            gap = offset - end
            if block.size <= gap < smallest:
                best, smallest = end, gap
            end = max(end, offset + size)
        placed.append((end if best is None else best, block))
    return max((offset + block.size for offset, block in placed), default=0)
