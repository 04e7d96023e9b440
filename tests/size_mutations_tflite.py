"""Changes of .tflite files, for size_mutations."""

import numpy as np

from phonefit.pipeline.convert.tflite_file import operator_names, packed, unpacked

Files = dict[str, bytes]


def on_objects(change, name: str = "int8.tflite"):
    """A change of the objects of a .tflite file."""

    def apply(files: Files) -> tuple[bytes, bytes]:
        model = unpacked(files[name])
        change(model)
        return packed(unpacked(files[name])), packed(model)

    return apply


def _convolution(model):
    """The operator with the largest weight, its weight tensor and the buffer of that."""
    graph = model.subgraphs[0]
    operators = [item for item in graph.operators if operator_names(model)[item.opcodeIndex] == "CONV_2D"]
    operator = max(operators, key=lambda item: len(model.buffers[graph.tensors[item.inputs[1]].buffer].data))
    tensor = graph.tensors[operator.inputs[1]]
    return operator, tensor, model.buffers[tensor.buffer]


def _added(model, tensor, name: str, data) -> int:
    """Index of a new tensor like another, with a buffer of its own."""
    from copy import deepcopy

    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(bytes(data), np.uint8) if data is not None else None
    model.buffers.append(buffer)
    new = deepcopy(tensor)
    new.buffer, new.name = len(model.buffers) - 1, name
    model.subgraphs[0].tensors.append(new)
    return len(model.subgraphs[0].tensors) - 1


def _kind(model, name: str) -> int:
    """Index of a type of operator, added where it is missing."""
    from ai_edge_litert import schema_py_generated as schema

    if name not in operator_names(model):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        model.operatorCodes.append(code)
    return operator_names(model).index(name)


def _operator(model, name: str, inputs: list[int], outputs: list[int]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = _kind(model, name), inputs, outputs
    model.subgraphs[0].operators.append(operator)


def one_weight_in_float(model) -> None:
    from ai_edge_litert import schema_py_generated as schema

    _, tensor, buffer = _convolution(model)
    buffer.data = np.frombuffer(np.asarray(buffer.data).view(np.int8).astype(np.float32).tobytes(), np.uint8)
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None


def duplicate(model) -> None:
    operator, tensor, buffer = _convolution(model)
    place = _added(model, tensor, "copy", buffer.data)
    _operator(model, "CONV_2D", [operator.inputs[0], place, operator.inputs[2]], list(operator.outputs))


def more_channels(model) -> None:
    _, tensor, buffer = _convolution(model)
    buffer.data = np.concatenate([buffer.data, buffer.data])
    tensor.shape = [2 * tensor.shape[0], *tensor.shape[1:]]


def new_layer(model) -> None:
    operator, tensor, _ = _convolution(model)
    place = _added(model, tensor, "extra", np.random.default_rng(0).integers(0, 255, 4608).astype(np.uint8).tobytes())
    model.subgraphs[0].tensors[place].shape = [32, 9, 16]
    _operator(model, "ADD", [operator.outputs[0], place], [operator.outputs[0]])


def casts(model) -> None:
    operator, tensor, _ = _convolution(model)
    for number in range(20):
        place = _added(model, tensor, f"cast {number}", None)
        _operator(model, "DEQUANTIZE" if number % 2 else "QUANTIZE", [operator.outputs[0]], [place])


def metadata(model) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(b"where a layer was made: line 12; " * 400, np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = "debug", len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def long_names(model) -> None:
    for place, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"network/block/convolution/{'deep/' * 100}{place}"


def scales(model) -> None:
    _, tensor, _ = _convolution(model)
    random = np.random.default_rng(0)
    for number, other in enumerate(model.subgraphs[0].tensors):
        if other.quantization is not None and other is not tensor:
            other.quantization.scale = random.random(100 + number).astype(np.float32)
            other.quantization.zeroPoint = np.arange(100 + number, dtype=np.int64)


def weight_of_its_own(files: Files) -> tuple[bytes, bytes]:
    """Two convolutions with one weight against two equal weights."""

    def model(share: bool):
        found = unpacked(files["int8.tflite"])
        operator, tensor, buffer = _convolution(found)
        place = operator.inputs[1] if share else _added(found, tensor, "own weight", buffer.data)
        _operator(found, "CONV_2D", [operator.inputs[0], place, operator.inputs[2]], list(operator.outputs))
        return found

    content = model(share=False)
    separate = content.buffers[-1]
    separate.data = separate.data.copy()
    separate.data[0] ^= 1  # or the writer would store both once
    return packed(model(share=True)), packed(content)


def constant_twice(files: Files) -> tuple[bytes, bytes]:
    """One content behind two tensors against two copies of it, as the converter's own writer leaves it."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = unpacked(files["int8.tflite"])
    duplicate(model)
    builder = Builder(1024)
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.zeroPoint is not None:
            tensor.quantization.zeroPoint = np.asarray(tensor.quantization.zeroPoint, dtype=np.int64)
    assert isinstance(model, schema.ModelT)
    builder.Finish(model.Pack(builder), b"TFL3")
    return packed(model), bytes(builder.Output())


def copy_of_a_weight(files: Files) -> tuple[bytes, bytes]:
    return files["int8.tflite"], constant_twice(files)[1]


def appended_file(files: Files) -> tuple[bytes, bytes]:
    return files["int8.tflite"], files["int8.tflite"] + b"notes " * 500


def renamed(model) -> None:
    for place, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"tensor_{place}"


def reordered(model) -> None:
    count = len(model.buffers)
    order = [0, *np.random.default_rng(0).permutation(np.arange(1, count)).tolist()]
    place = {old: new for new, old in enumerate(order)}
    model.buffers = [model.buffers[old] for old in order]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = place[tensor.buffer]
    for entry in model.metadata or []:
        entry.buffer = place[entry.buffer]
