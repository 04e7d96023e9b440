"""How much of a converted file the fast backend takes, counted in the file itself."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from phonefit.models.artifact import Delegation, Runtime
from phonefit.pipeline.errors import DelegationError

CPU_PROVIDER = "CPUExecutionProvider"


def delegation_of(path: Path, runtime: Runtime) -> Delegation:
    """Count the operators of a model file by who runs them.

    What `share` means differs by runtime, so it is for comparing files of one runtime:

    - executorch: operators inside XNNPACK's serialised graphs against kernel calls that are left in the program. Both
      are read from the file, so the figure holds on every device.
    - tflite: operators that the XNNPACK delegate of LiteRT on this machine takes when it loads the file. The Android
      runtime of the same version takes the same ones.
    - onnx: operators that ONNX Runtime's optimiser leaves. Its CPU provider runs all of any file that loads, so there
      is no share. What tells a good file from a bad one is `quantise_casts` and `transposes`: integers that did
      not fuse are left as QuantizeLinear and DequantizeLinear around operators in float.
    """
    return _COUNTERS[runtime](path)


def check_delegation(delegation: Delegation, least: float, name: str) -> None:
    """Hold the delegated share against a limit; a file without a share passes.

    Raises:
        DelegationError: it is below `least`; names the operators that were left out.
    """
    if delegation.share is None or delegation.share >= least:
        return
    rest = ", ".join(f"{count} x {operator}" for operator, count in sorted(delegation.rest.items()))
    raise DelegationError(
        f"{name}: {delegation.backend} takes {delegation.share:.0%} of the operators, least_delegated asks for "
        f"{least:.0%}; left out: {rest}. Replace these layers in the model, or lower convert.least_delegated"
    )


def _executorch(path: Path) -> Delegation:
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(path.read_bytes()).program
    plan = program.execution_plan[0]
    steps = [type(step.instr_args).__name__ for chain in plan.chains for step in chain.instructions]
    calls = [step.instr_args for chain in plan.chains for step in chain.instructions]
    rest = Counter(plan.operators[call.op_index].name for call in calls if type(call).__name__ == "KernelCall")
    inside: Counter[str] = Counter()
    for delegate in plan.delegates:
        inside.update(_xnnpack_operators(program.backend_delegate_data[delegate.processed.index].data))
    every = inside + rest
    return Delegation(
        backend="XNNPACK",
        operators=every.total(),
        delegated=inside.total(),
        partitions=steps.count("DelegateCall"),
        rest=dict(rest),
        transposes=_count(every, ("StaticTranspose", "permute", "transpose")),
        quantise_casts=_count(every, ("Convert", "quantize_per")),
    )


def _xnnpack_operators(payload: bytes) -> list[str]:
    """Names of the operators in a serialised XNNPACK graph: a header "XH00", then a flatbuffer.

    The flatbuffer has no reader in Python; its layout is in executorch/backends/xnnpack/serialization/schema.fbs.
    """
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from flatbuffers import number_types
    from flatbuffers.table import Table

    schema = resources.files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs").read_text()
    union = re.search(r"union XNodeUnion \{(.*?)\}", schema, re.DOTALL)
    assert union is not None  # in every version that writes such a graph
    names = ["NONE", *re.findall(r"XNN(\w+)", re.sub(r":\s*\w+", "", union[1]))]
    header = XNNHeader.from_bytes(bytes(payload[: XNNHeader.EXPECTED_LENGTH]))
    content = bytes(payload[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
    root = Table(content, int.from_bytes(content[:4], "little"))
    nodes = root.Offset(6)  # xnodes, the second field of XNNGraph
    if not nodes:
        return []
    found = []
    for place in range(root.VectorLen(nodes)):
        node = Table(content, root.Indirect(root.Vector(nodes) + 4 * place))
        found.append(names[node.Get(number_types.Uint8Flags, node.Offset(4) + node.Pos)])
    return found


def _tflite(path: Path) -> Delegation:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    own = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
    partitions = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    maker = {int(tensor): place for place, operator in enumerate(own) for tensor in operator["outputs"]}
    delegated: set[int] = set()
    for partition in partitions:
        delegated |= _between(own, maker, partition["inputs"], partition["outputs"])
    every = Counter(operator["op_name"] for operator in own)
    rest = Counter(operator["op_name"] for place, operator in enumerate(own) if place not in delegated)
    return Delegation(
        backend="XNNPACK",
        operators=len(own),
        delegated=len(delegated),
        partitions=len(partitions),
        rest=dict(rest),
        transposes=_count(every, ("TRANSPOSE",)),
        quantise_casts=_count(every, ("QUANTIZE", "DEQUANTIZE")),
    )


def _between(
    own: list[dict[str, Any]], maker: dict[int, int], inputs: Iterable[int], outputs: Iterable[int]
) -> set[int]:
    """Places of the operators on the way from `inputs` to `outputs`: those that one delegate kernel replaces."""
    known = {int(tensor) for tensor in inputs}
    open_tensors = [int(tensor) for tensor in outputs]
    found: set[int] = set()
    while open_tensors:
        tensor = open_tensors.pop()
        place = maker.get(tensor)
        if place is None or tensor in known or place in found:
            continue
        found.add(place)
        open_tensors.extend(int(source) for source in own[place]["inputs"])
    return found


def _onnx(path: Path) -> Delegation:
    from phonefit.device_bench.runtimes.onnx import without_telemetry

    without_telemetry()
    import onnx
    import onnxruntime

    with TemporaryDirectory(prefix="phonefit-") as folder:
        optimised = Path(folder, "optimised.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 3  # errors only: it warns that an optimised file is for this processor
        onnxruntime.InferenceSession(str(path), options, providers=[CPU_PROVIDER])
        nodes = Counter(node.op_type for node in onnx.load(str(optimised)).graph.node)
    return Delegation(
        backend=CPU_PROVIDER,
        operators=nodes.total(),
        delegated=None,
        partitions=1,
        transposes=_count(nodes, ("Transpose",)),
        quantise_casts=_count(nodes, ("QuantizeLinear", "DequantizeLinear")),
    )


def _count(operators: Counter[str], parts: tuple[str, ...]) -> int:
    return sum(count for name, count in operators.items() if any(part in name for part in parts))


_COUNTERS: dict[Runtime, Callable[[Path], Delegation]] = {"executorch": _executorch, "tflite": _tflite, "onnx": _onnx}
