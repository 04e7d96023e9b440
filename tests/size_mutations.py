"""Regressions and harmless changes, planted in real files: what the reasons for growth are tried on.

Each takes the files of size_artifacts and gives the old and the new content. A regression stands beside its cause.
"""

from collections.abc import Callable

import numpy as np

from phonefit.pipeline.convert.tflite_file import compacted, packed, unpacked
from tests import size_mutations_tflite as on_tflite

Files = dict[str, bytes]
Change = Callable[[Files], tuple[bytes, bytes]]


def _onnx(change, name: str = "int8.onnx") -> Change:
    """A change of an ONNX model."""

    def apply(files: Files) -> tuple[bytes, bytes]:
        import onnx

        model = onnx.load_from_string(files[name])
        change(model)
        return files[name], model.SerializeToString()

    return apply


def _largest(model):
    return max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def _onnx_float(model) -> None:
    from onnx import numpy_helper

    weight = _largest(model)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))


def _onnx_copy(model) -> None:
    weight = model.graph.initializer.add()
    weight.CopyFrom(_largest(model))
    weight.name += "_copy"
    reader = next(node for node in model.graph.node if _largest(model).name in node.input)
    twin = model.graph.node.add()
    twin.CopyFrom(reader)
    twin.name, twin.output[0] = "twin", "twin"
    twin.input[list(twin.input).index(_largest(model).name)] = weight.name


def _onnx_shared(files: Files) -> tuple[bytes, bytes]:
    import onnx

    new = onnx.load_from_string(files["int8.onnx"])
    _onnx_copy(new)
    old = onnx.load_from_string(new.SerializeToString())
    weight = old.graph.initializer.pop()
    old.graph.node[-1].input[list(old.graph.node[-1].input).index(weight.name)] = weight.name.removesuffix("_copy")
    return old.SerializeToString(), new.SerializeToString()


def _onnx_casts(model) -> None:
    from onnx import helper

    value = model.graph.node[0].output[0]
    for number in range(10):
        model.graph.node.append(helper.make_node("QuantizeLinear", [value, value], [f"q{number}"]))
        model.graph.node.append(helper.make_node("DequantizeLinear", [f"q{number}", value], [f"d{number}"]))


def _onnx_metadata(model) -> None:
    for node in model.graph.node:
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.stack_trace", "File network.py, line 12, in forward\n" * 30


def _onnx_names(model) -> None:
    for node in model.graph.node:
        node.name = f"network/block/{'deep/' * 100}{node.name}"


def _onnx_new(model) -> None:
    from onnx import helper, numpy_helper

    values = np.random.default_rng(0).standard_normal((17, 40)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "extra"))
    model.graph.node.append(helper.make_node("Softmax", ["extra"], ["probabilities"]))


def _onnx_softmax(model) -> None:
    from onnx import helper

    model.graph.node.append(helper.make_node("Softmax", [model.graph.node[-1].output[0]], ["probabilities"]))


def _onnx_grown(model) -> None:
    from onnx import numpy_helper

    weight = _largest(model)
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.concatenate([values, values[:5]]), weight.name))


def _program(change=None, name: str = "int8.pte", alignment: int = 128) -> Change:
    """A change of the objects of a .pte file, written by ExecuTorch's own writer."""

    def apply(files: Files) -> tuple[bytes, bytes]:
        return written(files[name]), written(files[name], change, alignment)

    return apply


def written(content: bytes, change=None, alignment: int = 128) -> bytes:
    """A .pte file read and written by ExecuTorch."""
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    file = deserialize_pte_binary(content)
    if change is not None:
        change(file)
    return bytes(serialize_pte_binary(file, extract_delegate_segments=True, segment_alignment=alignment))


def _pte_duplicate(file) -> None:
    from executorch.exir._serialize.data_serializer import DataEntry

    largest = max(file.named_data.buffers, key=len)
    file.named_data.buffers.append(largest)
    file.named_data.pte_data["copy"] = DataEntry(len(file.named_data.buffers) - 1, 16, None)


def _pte_new(file) -> None:
    from executorch.exir._serialize.data_serializer import DataEntry

    file.named_data.buffers.append(np.random.default_rng(0).bytes(5000))
    file.named_data.pte_data["extra"] = DataEntry(len(file.named_data.buffers) - 1, 16, None)


def _pte_stack_traces(file) -> None:
    from executorch.exir.schema import Frame, FrameList

    chain = file.program.execution_plan[0].chains[0]
    frame = Frame(
        filename="network.py", lineno=12, name="forward", context="x = self.convolution(x)  # " + "why " * 500
    )
    chain.stacktrace = [FrameList(items=[frame]) for _ in chain.instructions]


def _pte_casts(file) -> None:
    from executorch.exir.schema import Instruction, KernelCall, Operator

    plan = file.program.execution_plan[0]
    plan.operators.append(Operator(name="quantized_decomposed::quantize_per_tensor", overload="out"))
    call = KernelCall(op_index=len(plan.operators) - 1, args=[0, 1])
    plan.chains[0].instructions.extend([Instruction(instr_args=call)] * 12)


def not_delegated(files: Files) -> tuple[bytes, bytes]:
    """The float network, delegated and not."""
    return files["float.pte"], files["plain.pte"]


REGRESSIONS: dict[str, tuple[str, str, Change]] = {
    "tflite, weight in float": (".tflite", "stayed float", on_tflite.on_objects(on_tflite.one_weight_in_float)),
    "tflite, all in float": (".tflite", "stayed float", lambda files: (files["int8.tflite"], files["float.tflite"])),
    "tflite, constant twice": (".tflite", "unshared tensor", on_tflite.constant_twice),
    "tflite, weight of its own": (".tflite", "unshared tensor", on_tflite.weight_of_its_own),
    "tflite, copy of a weight": (".tflite", "duplicated constant", on_tflite.copy_of_a_weight),
    "tflite, more channels": (".tflite", "grown tensor", on_tflite.on_objects(on_tflite.more_channels)),
    "tflite, new layer": (".tflite", "new tensor", on_tflite.on_objects(on_tflite.new_layer)),
    "tflite, casts": (".tflite", "casts", on_tflite.on_objects(on_tflite.casts)),
    "tflite, metadata": (".tflite", "metadata", on_tflite.on_objects(on_tflite.metadata)),
    "tflite, appended file": (".tflite", "metadata", on_tflite.appended_file),
    "tflite, names": (".tflite", "names", on_tflite.on_objects(on_tflite.long_names)),
    "tflite, scales": (".tflite", "scales", on_tflite.on_objects(on_tflite.scales)),
    "tflite, padding": (".tflite", "padding", lambda files: (files["int8.tflite"], files["int8.tflite"] + bytes(4096))),
    "onnx, weight in float": (".onnx", "stayed float", _onnx(_onnx_float)),
    "onnx, copy of a weight": (".onnx", "duplicated constant", _onnx(_onnx_copy)),
    "onnx, weight of its own": (".onnx", "unshared tensor", _onnx_shared),
    "onnx, casts": (".onnx", "casts", _onnx(_onnx_casts)),
    "onnx, stack traces": (".onnx", "metadata", _onnx(_onnx_metadata)),
    "onnx, names": (".onnx", "names", _onnx(_onnx_names)),
    "onnx, new layer": (".onnx", "new tensor", _onnx(_onnx_new)),
    "onnx, new operator": (".onnx", "new operator", _onnx(_onnx_softmax)),
    "onnx, more channels": (".onnx", "grown tensor", _onnx(_onnx_grown)),
    "pte, all in float": (".pte", "stayed float", lambda files: (files["int8.pte"], files["float.pte"])),
    "pte, not delegated": (".pte", "left the delegate", not_delegated),
    "pte, more channels": (".pte", "grown tensor", lambda files: (files["float.pte"], files["wide.pte"])),
    "pte, copy of a weight": (".pte", "duplicated constant", _program(_pte_duplicate)),
    "pte, new data": (".pte", "new tensor", _program(_pte_new)),
    "pte, stack traces": (".pte", "metadata", _program(_pte_stack_traces)),
    "pte, casts": (".pte", "casts", _program(_pte_casts)),
    "pte, padding": (".pte", "padding", _program(alignment=4096)),
}  # fmt: skip


def _onnx_renamed(model) -> None:
    names = {tensor.name: f"w{place}" for place, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _onnx_reordered(model) -> None:
    tensors = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def _onnx_stripped(model) -> None:
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]


def _pte_renamed(file) -> None:
    for number, plan in enumerate(file.program.execution_plan):
        plan.name = plan.name + str(number)


def _same(name: str) -> Change:
    return lambda files: (files[name], bytes(bytearray(files[name])))


def _pair(old: str, new: str) -> Change:
    return lambda files: (files[old], files[new])


HARMLESS: dict[str, tuple[str, Change]] = {
    "tflite, copied": (".tflite", _same("int8.tflite")),
    "tflite, built again": (".tflite", _pair("int8.tflite", "again.tflite")),
    "tflite, other weights": (".tflite", _pair("int8.tflite", "other.tflite")),
    "tflite, written again": (".tflite", lambda files: (files["int8.tflite"], packed(unpacked(files["int8.tflite"])))),
    "tflite, compacted": (".tflite", lambda files: (files["float.tflite"], compacted(files["float.tflite"]))),
    "tflite, renamed": (".tflite", on_tflite.on_objects(on_tflite.renamed)),
    "tflite, reordered": (".tflite", on_tflite.on_objects(on_tflite.reordered)),
    "onnx, copied": (".onnx", _same("int8.onnx")),
    "onnx, built again": (".onnx", _pair("int8.onnx", "again.onnx")),
    "onnx, other weights": (".onnx", _pair("int8.onnx", "other.onnx")),
    "onnx, written again": (".onnx", _onnx(lambda model: None)),
    "onnx, renamed": (".onnx", _onnx(_onnx_renamed)),
    "onnx, reordered": (".onnx", _onnx(_onnx_reordered)),
    "onnx, stripped": (".onnx", _onnx(_onnx_stripped)),
    "pte, copied": (".pte", _same("int8.pte")),
    "pte, built again": (".pte", _pair("int8.pte", "again.pte")),
    "pte, other weights": (".pte", _pair("int8.pte", "other.pte")),
    "pte, written again": (".pte", lambda files: (files["int8.pte"], written(files["int8.pte"]))),
    "pte, renamed": (".pte", _program(_pte_renamed)),
}  # fmt: skip
