"""Files taken apart into parts that add up, and refused with the byte at which reading fails."""

import struct
import sys
import sysconfig
import zipfile
from importlib import import_module
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from phonefit.models.artifact import SUFFIXES
from phonefit.pipeline.size.anatomy import FORMATS, READERS, BrokenFileError, anatomy, anatomy_of
from phonefit.pipeline.size.flat import Flat
from phonefit.pipeline.size.ledger import GRAPH, Ledger, Owner
from phonefit.pipeline.size.wire import fields

ONNX = Path("model.onnx")
PTE = Path("model.pte")
TFLITE = Path("model.tflite")


def onnx_model(**changes):
    """Two quantised layers that share a weight, a shape, a name and a note."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.arange(12, dtype=np.int8).reshape(3, 4), "weight")
    scale = numpy_helper.from_array(np.ones(3, np.float32), "scale")
    shape = numpy_helper.from_array(np.array([2, 2], np.int64), "shape")
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["w"], axis=0),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("MatMul", ["y", "weight"], ["z"]),
        helper.make_node("Reshape", ["z", "shape"], ["out"], doc_string="a note"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "out")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [weight, scale, shape])
    for name, value in changes.items():
        getattr(graph.initializer[0], name).CopyFrom(value) if hasattr(value, "CopyFrom") else setattr(
            graph.initializer[0], name, value
        )
    return helper.make_model(graph)


def parts(found, section):
    return {part.name: part for part in found.parts if part.section == section}


def test_onnx_tensors_operators_and_notes():
    content = onnx_model().SerializeToString()
    found = anatomy_of(content, ONNX)
    assert sum(part.bytes for part in found.parts) == len(content) == sum(found.sections().values())
    assert found.operators == {"DequantizeLinear": 1, "MatMul": 2, "Reshape": 1}
    weight = parts(found, "weights")["weight"]
    assert (weight.bytes, weight.dtype, weight.shape, weight.scales, weight.users) == (12, "int8", (3, 4), 3, 2)
    assert parts(found, "scales")["scale"].bytes == 12
    assert parts(found, "constants")["shape"].bytes == 16
    assert parts(found, "metadata")["metadata"].bytes >= len("a note")
    assert {part.name: part.users for part in found.parts if part.kind == "operator"} == found.operators


def test_onnx_values_in_a_list_by_type():
    from onnx import TensorProto, helper

    values = helper.make_tensor("weight", TensorProto.FLOAT, (3, 4), np.arange(12.0).tolist())
    weight = parts(anatomy_of(_with_weight(values), ONNX), "weights")["weight"]
    assert (weight.bytes, weight.dtype, weight.shape) == (48, "float32", (3, 4))
    integers = helper.make_tensor("weight", TensorProto.INT8, (3, 4), [1, -1] * 6)
    found = anatomy_of(_with_weight(integers), ONNX)
    assert parts(found, "weights")["weight"].bytes == 6 * 1 + 6 * 10  # a negative number takes ten bytes


def _with_weight(tensor) -> bytes:
    model = onnx_model()
    model.graph.initializer[0].CopyFrom(tensor)
    return model.SerializeToString()


def test_onnx_external_data_is_named():
    model = onnx_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="weights.bin")
    assert anatomy_of(model.SerializeToString(), ONNX).external == ("weights.bin",)


def test_onnx_operators_in_subgraphs_count():
    from onnx import helper

    model = onnx_model()
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "then", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["i"], then_branch=branch, else_branch=branch))
    assert anatomy_of(model.SerializeToString(), ONNX).operators["Relu"] == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"raw_data": bytes(11)}, "has 11 bytes or values, not 12"),
        ({"raw_data": b""}, "has no values"),
        ({"data_type": 99}, "unknown type 99"),
    ],
)
def test_onnx_tensor_that_is_not_as_described(changes, problem):
    with pytest.raises(BrokenFileError, match=problem):
        anatomy_of(onnx_model(**changes).SerializeToString(), ONNX)


def test_cut_off_onnx_names_the_byte():
    content = onnx_model().SerializeToString()
    for length in range(len(content)):
        with pytest.raises(BrokenFileError) as caught:
            anatomy_of(content[:length], ONNX)
        assert 0 <= caught.value.offset <= length
        assert caught.value.exit_code == 3


def test_deep_messages_end(tmp_path):
    content = b""
    for _ in range(3000):  # a graph in an attribute in a node in a graph …
        content = _field(1, _field(5, _field(6, content)) + _field(4, b"If"))
    with pytest.raises(BrokenFileError, match="nested more than"):
        anatomy_of(b"\x08\x08" + _field(7, content) + _field(8, b""), ONNX)


def _field(number: int, content: bytes) -> bytes:
    length, head = len(content), b""
    while length >= 0x80:
        head += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + head + bytes([length]) + content


def test_endless_integer_is_refused():
    with pytest.raises(BrokenFileError, match="without an end"):
        list(fields(Ledger(ONNX, b"\xff" * 20), 0, 20))


@pytest.mark.parametrize("suffix", [".pte", ".tflite", ".onnx", ".apk", ".aar", ".so"])
@pytest.mark.parametrize(
    "content", [b"", b"text, no model", b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(4096), b"\xff" * 4096]
)
def test_foreign_content_is_refused(suffix, content):
    with pytest.raises(BrokenFileError, match=f"damaged{suffix}: broken at byte"):
        anatomy_of(content, Path(f"damaged{suffix}"))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(BrokenFileError, match="No such file"):
        anatomy(tmp_path / "none.pte")


def test_file_without_a_known_suffix_is_one_part(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    found = anatomy(tmp_path / "labels.txt")
    assert (found.format, found.sections()) == ("other", {"other": 8})


def test_equal_ranges_are_one_part_with_all_users():
    ledger = Ledger(PTE, b"12345678")
    for _ in range(2):
        ledger.claim(2, 6, Owner("weights", "shared", "tensor", users=1))
    found = ledger.parts()
    assert [(part.section, part.bytes, part.users) for part in found] == [("weights", 4, 2), ("metadata", 4, 0)]


def test_overlapping_ranges_are_refused():
    ledger = Ledger(PTE, b"12345678")
    ledger.claim(0, 4, GRAPH)
    ledger.claim(2, 6, Owner("weights", "w", "tensor"))
    with pytest.raises(BrokenFileError, match="byte 2: w overlaps") as caught:
        ledger.parts()
    assert caught.value.offset == 2


def test_bytes_between_are_padding_or_of_their_region():
    ledger = Ledger(PTE, b"abcd" + bytes(20) + b"ef" + bytes(10) + b"end!")
    ledger.region(0, 36, GRAPH)
    ledger.claim(0, 4, Owner("weights", "w", "tensor"))
    sizes = {part.section: part.bytes for part in ledger.parts()}
    assert sizes == {"weights": 4, "padding": 30, "graph": 2, "metadata": 4}


def flat_buffer() -> bytes:
    """A table with a number, a string and a vector."""
    builder = flatbuffers.Builder(0)
    name = builder.CreateString("name")
    numbers = builder.CreateNumpyVector(np.array([7, 8, 9], np.int32))
    builder.StartObject(3)
    builder.PrependInt32Slot(0, 5, 0)
    builder.PrependUOffsetTRelativeSlot(1, name, 0)
    builder.PrependUOffsetTRelativeSlot(2, numbers, 0)
    builder.Finish(builder.EndObject(), b"TEST")
    return bytes(builder.Output())


def read_flat(content: bytes):
    ledger = Ledger(PTE, content)
    table = Flat(ledger, 0, len(content)).root(b"TEST")
    values = table.number(0, "i"), table.text(1), table.numbers(2, "i"), table.number(9, "i", default=4)
    return values, ledger.parts()


def test_flatbuffer_is_read_and_booked():
    values, found = read_flat(flat_buffer())
    assert values == (5, "name", (7, 8, 9), 4)
    assert {part.section for part in found} <= {"graph", "names", "padding"}


def test_every_bit_of_a_flatbuffer_may_be_wrong():
    content = flat_buffer()
    refused = 0
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            _, found = read_flat(bytes(changed))
        except BrokenFileError as error:
            assert 0 <= error.offset <= len(content)
            refused += 1
        else:
            assert sum(part.bytes for part in found) == len(content)
    assert refused > 8 * len(content) // 3


def test_offsets_that_lead_in_circles_end():
    """A million entries of a vector that all lead to one table with a long vector."""
    builder = flatbuffers.Builder(0)
    numbers = builder.CreateNumpyVector(np.zeros(200_000, np.int32))
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, numbers, 0)
    inner = builder.EndObject()
    builder.StartVector(4, 200_000, 4)
    for _ in range(200_000):
        builder.PrependUOffsetTRelative(inner)
    tables = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, tables, 0)
    builder.Finish(builder.EndObject(), b"TEST")
    content = bytes(builder.Output())
    root = Flat(Ledger(PTE, content), 0, len(content)).root(b"TEST")
    with pytest.raises(BrokenFileError, match="in circles"):
        for table in root.tables(0):
            table.numbers(0, "i")


def tflite_model(offset: int = 0, inside: bytes | None = bytes(range(12)), shape=(3, 4)) -> bytes:
    """A matrix product with a weight of 12 bytes in the flatbuffer, or at an offset behind it."""
    from ai_edge_litert import schema_py_generated as schema

    weight, empty = schema.BufferT(), schema.BufferT()
    if offset:
        weight.offset, weight.size = offset, 12
    else:
        weight.data = np.frombuffer(inside, np.uint8)
    matrix, values = schema.TensorT(), schema.TensorT()
    matrix.name, matrix.shape, matrix.type, matrix.buffer = "w", list(shape), schema.TensorType.INT8, 1
    matrix.quantization = schema.QuantizationParametersT()
    matrix.quantization.scale, matrix.quantization.zeroPoint = np.ones(3, np.float32), np.zeros(3, np.int64)
    values.name, values.shape, values.type, values.buffer = "x", [1, 4], schema.TensorType.INT8, 0
    code, operator, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    operator.inputs, operator.outputs = [1, 0, -1], [1]
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [matrix, values], [1], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, weight]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def behind_the_flatbuffer() -> bytes:
    """The same as LiteRT's quantiser of files writes it: constants after the flatbuffer."""
    end = len(tflite_model(offset=1 << 20))
    return tflite_model(offset=end + 16) + bytes(16) + bytes(range(12))


@pytest.mark.parametrize("content", [tflite_model(), behind_the_flatbuffer()])
def test_tflite_weights_inside_and_behind_the_flatbuffer(content):
    found = anatomy_of(content, TFLITE)
    assert sum(part.bytes for part in found.parts) == len(content)
    assert found.operators == {"FULLY_CONNECTED": 1}
    (weight,) = (part for part in found.parts if part.kind == "tensor")
    assert (weight.bytes, weight.dtype, weight.shape, weight.scales, weight.users) == (12, "int8", (3, 4), 3, 1)
    assert found.sections()["scales"] == 4 + 3 * 4 + 4 + 3 * 8


def test_tflite_tensor_that_does_not_fit_its_buffer():
    with pytest.raises(BrokenFileError, match="has 12 bytes, not 15"):
        anatomy_of(tflite_model(shape=(3, 5)), TFLITE)
    with pytest.raises(BrokenFileError, match="would end at byte"):
        anatomy_of(behind_the_flatbuffer()[:-1], TFLITE)


def test_every_format_that_is_converted_to_has_a_reader():
    for suffix in SUFFIXES.values():
        assert hasattr(import_module(READERS[FORMATS[suffix]]), "read")
    assert set(FORMATS.values()) == set(READERS)


def test_archive_entries_by_what_they_are(tmp_path):
    path = tmp_path / "app.apk"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/model.tflite", bytes(5000), zipfile.ZIP_STORED)
        archive.writestr("classes.dex", b"code" * 500)
        archive.writestr("lib/arm64-v8a/libx.so", bytes(range(256)))
        archive.writestr("res/icon.png", b"picture")
        archive.writestr("META-INF/CERT.RSA", b"key")
        stored = {entry.filename: entry.compress_size for entry in archive.infolist()}
    found = anatomy(path)
    assert sum(part.bytes for part in found.parts) == path.stat().st_size
    assert {part.name: part.bytes for part in found.parts if part.kind == "entry"} == stored
    assert set(found.sections()) >= {"models", "code", "native", "resources", "signature", "graph"}
    with pytest.raises(BrokenFileError, match="directory of the archive is missing"):
        anatomy_of(path.read_bytes()[:-30], path)


def test_sections_of_a_real_library():
    folder = Path(sysconfig.get_path("platlib"), "ai_edge_litert")
    path = folder / "_pywrap_string_util.so"
    if sys.platform != "linux":
        pytest.skip("libraries of other systems are no ELF files")
    found = anatomy(path)
    assert sum(part.bytes for part in found.parts) == path.stat().st_size
    assert parts(found, "code")[".text"].bytes > 0
    with pytest.raises(BrokenFileError):
        anatomy_of(path.read_bytes()[:-200], path)


def test_program_without_room_for_its_segments_is_refused():
    header = struct.pack("<4sIQQQ", b"eh00", 32, 64, 64, 1000)
    content = struct.pack("<I", 48) + b"ET12" + header + bytes(60)
    with pytest.raises(BrokenFileError, match="segments end at 1,064, the file at 100"):
        anatomy_of(content, PTE)
