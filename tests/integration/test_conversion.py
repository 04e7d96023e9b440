"""The conversion stage, with real converters and runtimes on a tiny network."""

import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn, special

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import SUFFIXES
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture
from phonefit.pipeline.convert import CONVERTERS, converter, stage, tflite
from phonefit.pipeline.convert.graph import exported_graph
from phonefit.pipeline.convert.parity import check_parity, parity, parity_samples, reference_outputs
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.convert.tflite_file import Arithmetic, compacted, packed, unpacked
from phonefit.pipeline.errors import ConversionError, DelegationError, ParityError, StoreError, UnknownNameError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import ConvertConfig, ParityConfig
from tests.tiny import LABELS, SIZE, TinyPictures, tiny_checkpoint, tiny_context

RUNTIMES = tuple(CONVERTERS)


@pytest.fixture
def context(tmp_path):
    return tiny_context(tmp_path)


def padded(outputs: int):
    """Asymmetric zero padding before strided convolutions, residuals in a row, normalisations that stand alone."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(16)
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return x + self.conv(nn.functional.relu(self.norm(x)))

    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(3, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(16, 16, 3, stride=2, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        Block(),
        Block(),
        Block(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16, outputs),
    )


def padded_checkpoint(folder, context, quantised):
    torch.manual_seed(0)
    network = padded(len(LABELS)).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.from_numpy(context.data.inputs("train", 0, 48)))
    factory = f"{__name__}:padded"
    architecture = Architecture(factory=factory, outputs=len(LABELS), height=SIZE, width_pixels=SIZE)
    info = tiny_checkpoint(folder / "tiny", quantised).info.model_copy(update={"architecture": architecture})
    return Checkpoint.save(folder / "padded", network.eval(), info)


def test_second_call_is_served_from_the_store(tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint")
    first = convert_stage(checkpoint, "onnx", context, ConvertConfig())
    second = convert_stage(checkpoint, "onnx", context, ConvertConfig())
    assert (first[0].reused, second[0].reused) == (False, True)
    assert first[1:] == second[1:]


def test_another_limit_judges_the_stored_figures_anew(tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", quantised=True)
    convert_stage(checkpoint, "onnx", context, ConvertConfig())
    with pytest.raises(ParityError, match=r"\.onnx int8.*snr_db .* is below the limit 200 dB"):
        convert_stage(checkpoint, "onnx", context, ConvertConfig(parity=ParityConfig(snr_db=200)))
    result, *_ = convert_stage(checkpoint, "onnx", context, ConvertConfig())
    assert result.reused


@pytest.mark.parametrize("quantised", [False, True], ids=["fp32", "int8"])
def test_another_number_of_samples_or_other_data_convert_again_only_where_needed(quantised, tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", quantised)
    first = convert_stage(checkpoint, "onnx", context, ConvertConfig())
    fewer = convert_stage(checkpoint, "onnx", context, ConvertConfig(parity=ParityConfig(samples=5)))
    assert fewer[0].reused and fewer[0].key == first[0].key
    assert (first[3].samples, fewer[3].samples) == (32, 5)

    class Others(TinyPictures):
        digest = "tiny-pictures-2"

    others = convert_stage(checkpoint, "onnx", replace(context, data=Others(per_side=20)), ConvertConfig())
    assert others[0].reused == (not quantised)  # calibration reads the data
    assert others[3].samples == 20


def test_another_calibration_is_another_conversion(tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", quantised=True)
    quantisation = checkpoint.info.quantisation.model_copy(update={"calibration": CalibrationSet(samples=8)})
    info = checkpoint.info.model_copy(update={"quantisation": quantisation})
    other = Checkpoint.save(tmp_path / "other", checkpoint.load(), info)
    first, second = (convert_stage(item, "onnx", context, ConvertConfig())[0] for item in (checkpoint, other))
    assert first.key != second.key


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_whose_outputs_are_not_finite_is_named(runtime, tmp_path, context):
    tiny = tiny_checkpoint(tmp_path / "tiny")
    network = tiny.load()
    with torch.no_grad():
        network[-1].bias[0] = float("nan")
    broken = Checkpoint.save(tmp_path / "broken", network, tiny.info)
    with pytest.raises(ParityError, match=rf"^\{SUFFIXES[runtime]} fp32: 32 of 32 samples"):
        convert_stage(broken, runtime, context, ConvertConfig())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_of_another_checkpoint_are_caught(runtime, tmp_path, context):
    """A file that loads, has the right shapes, and computes something else."""
    ours, other = tiny_checkpoint(tmp_path / "ours"), tiny_checkpoint(tmp_path / "other", seed=1)
    _, _, path, _ = convert_stage(other, runtime, context, ConvertConfig())
    outputs = run_samples(runtime_module(runtime).load(path, 1), parity_samples(context, 32))
    figures = parity(reference_outputs(ours, context, 32), outputs, context.task, path.name)
    with pytest.raises(ParityError, match="does not compute what its PyTorch model computes"):
        check_parity(figures, ParityConfig(), path.name)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("quantised", [False, True], ids=["fp32", "int8"])
def test_padding_residuals_and_lone_normalisation(runtime, quantised, tmp_path, context):
    checkpoint = padded_checkpoint(tmp_path, context, quantised)
    limits = ParityConfig(cosine=0.999, snr_db=25 if quantised else 90)
    _, artifact, _, _ = convert_stage(checkpoint, runtime, context, ConvertConfig(parity=limits, least_delegated=1))
    assert artifact.delegation.quantise_casts <= (6 if quantised else 0)
    assert artifact.delegation.transposes <= 2  # none around the padding


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_samples_run_whatever_the_layout_and_number_format(runtime, tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", quantised=True)
    _, _, path, _ = convert_stage(checkpoint, runtime, context, ConvertConfig())
    inputs = context.data.inputs("validation", 0, 8)
    session = runtime_module(runtime).load(path, 1)
    outputs = run_samples(session, inputs)
    assert outputs.shape == (8, len(LABELS)) and outputs.dtype == np.float32
    assert np.array_equal(run_samples(session, inputs[3:4])[0], outputs[3])  # samples do not meet


def test_failure_of_a_library_names_its_cause_and_the_log(tmp_path, context, monkeypatch, capfd):
    def failing(checkpoint, context, destination, name):
        print("noise of the converter")
        raise ValueError("\n  ---\n  operator frobnicate is not known\n  more lines")

    monkeypatch.setattr(stage, "converter", lambda runtime: failing)
    with pytest.raises(ConversionError) as caught:
        convert_stage(tiny_checkpoint(tmp_path / "checkpoint"), "tflite", context, ConvertConfig())
    assert "ValueError: operator frobnicate is not known." in str(caught.value)
    assert str(context.log) in str(caught.value)
    log = context.log.read_text()
    assert "noise of the converter" in log and "Traceback" in log
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "runs").rglob("stage.json"))  # nothing is taken for a result


@pytest.mark.parametrize("error, raised", [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "full"), StoreError)])
def test_interruption_and_full_disk_are_not_conversion_errors(error, raised, tmp_path, context, monkeypatch):
    def failing(checkpoint, context, destination, name):
        raise error

    monkeypatch.setattr(stage, "converter", lambda runtime: failing)
    with pytest.raises(raised):
        convert_stage(tiny_checkpoint(tmp_path / "checkpoint"), "onnx", context, ConvertConfig())


def test_real_conversion_is_silent(tmp_path, context, capfd):
    handlers = logging.getLogger().handlers[:]
    convert_stage(tiny_checkpoint(tmp_path / "checkpoint"), "tflite", context, ConvertConfig())
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert "==== converter" in context.log.read_text()


def test_operators_outside_the_delegate_fail_the_limit(tmp_path, context):
    """erf has no XNNPACK kernel in ExecuTorch: it is left to a portable one, and the message names it."""
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    architecture = checkpoint.info.architecture.model_copy(update={"factory": f"{__name__}:with_erf"})
    info = checkpoint.info.model_copy(update={"architecture": architecture})
    other = Checkpoint.save(tmp_path / "erf", with_erf(len(LABELS)).eval(), info)
    _, artifact, _, _ = convert_stage(other, "executorch", context, ConvertConfig())
    assert artifact.delegation.rest == {"aten::erf": 1} and artifact.delegation.partitions == 2
    with pytest.raises(DelegationError, match="1 x aten::erf"):
        convert_stage(other, "executorch", context, ConvertConfig(least_delegated=1))


class Erf(nn.Module):
    def forward(self, x):
        return special.erf(x)


def with_erf(outputs: int):
    layers = (nn.Conv2d(3, 8, 3, stride=2), Erf(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))
    return nn.Sequential(*layers)


def test_a_network_that_cannot_be_traced_is_explained(tmp_path, context):
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    architecture = checkpoint.info.architecture.model_copy(update={"factory": f"{__name__}:data_dependent"})
    info = checkpoint.info.model_copy(update={"architecture": architecture})
    other = Checkpoint.save(tmp_path / "other", data_dependent(len(LABELS)).eval(), info)
    with pytest.raises(ConversionError, match="must not depend on the values of its input"):
        convert_stage(other, "onnx", context, ConvertConfig())


def data_dependent(outputs: int):
    class Branch(nn.Sequential):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    return Branch(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, outputs))


def test_float_layers_cost_no_more_casts_and_transposes_than_they_must(tmp_path, context):
    """One layer between quantised ones in a .tflite file: one DEQUANTIZE before it, one QUANTIZE after it."""
    checkpoint = quantised_checkpoint(tmp_path, float_layers=("3.pointwise",))
    _, artifact, _, figures = convert_stage(checkpoint, "tflite", context, ConvertConfig(least_delegated=1))
    assert (artifact.delegation.quantise_casts, artifact.delegation.transposes) == (2, 0)
    assert artifact.notes == () and figures.snr_db > 30


def quantised_checkpoint(folder, **changes):
    checkpoint = tiny_checkpoint(folder / "tiny", quantised=True)
    quantisation = checkpoint.info.quantisation.model_copy(update=changes)
    return Checkpoint.save(
        folder / "other", checkpoint.load(), checkpoint.info.model_copy(update={"quantisation": quantisation})
    )


def test_an_int8_tflite_file_without_integers_is_refused(tmp_path, context, monkeypatch):
    """A quantiser that leaves out layers on its own, as one does that does not know the operators around them."""
    usual = tflite._quantizer
    left_out = {"float_layers": ("0", "3", "4")}
    monkeypatch.setattr(tflite, "_quantizer", lambda asked: usual(asked.model_copy(update=left_out)))
    with pytest.raises(
        ConversionError, match=r"4 of the 5 convolutions .* compute in float, .* float_layers explains 0"
    ):
        convert_stage(quantised_checkpoint(tmp_path), "tflite", context, ConvertConfig())


def test_casts_beyond_the_float_layers_are_noted():
    found = Arithmetic(casts=6, float_layers=1, layers=5, float_operators={"CONV_2D": 1, "GELU": 2})
    (note,) = tflite.check_integers(found, exceptions=1, crossings=2)
    assert note.startswith("6 QUANTIZE and DEQUANTIZE operators, of which float_layers explains 2")
    assert note.endswith("1 x CONV_2D, 2 x GELU")
    assert tflite.check_integers(found, exceptions=1, crossings=6) == ()


def test_compacting_a_tflite_file_changes_no_output_bit(tmp_path, context, monkeypatch):
    """On XNNPACK and on LiteRT's own kernels; names of this network's classes are gone."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    checkpoint, files = quantised_checkpoint(tmp_path), {}
    monkeypatch.setattr(tflite, "compacted", lambda content: files.setdefault("plain", content))
    _, _, path, _ = convert_stage(checkpoint, "tflite", context, ConvertConfig())
    files["plain"], files["compact"] = path.read_bytes(), compacted(path.read_bytes())
    assert len(files["compact"]) < len(files["plain"]) and b"Residual" in files["plain"]
    assert b"Residual" not in files["compact"]
    pictures = np.random.default_rng(0).integers(-128, 128, (4, 1, SIZE, SIZE, 3), dtype=np.int8)
    for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        outputs = {}
        for name, content in files.items():
            interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
            interpreter.allocate_tensors()
            outputs[name] = []
            for picture in pictures:
                interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
                interpreter.invoke()
                outputs[name].append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes())
        assert outputs["plain"] == outputs["compact"] and len(set(outputs["plain"])) > 1


def test_constants_behind_the_flatbuffer_come_into_a_compacted_file(tmp_path, context):
    """As LiteRT's quantiser writes them for networks of some size."""
    _, _, path, _ = convert_stage(tiny_checkpoint(tmp_path / "tiny"), "tflite", context, ConvertConfig())
    inside = path.read_bytes()
    model, behind = unpacked(inside), b""
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 100:
            buffer.offset, buffer.size, behind = (
                len(inside) + len(behind),
                len(buffer.data),
                behind + bytes(buffer.data),
            )
            buffer.data = None
    shell = packed(model)
    outside = shell + bytes(len(inside) - len(shell)) + behind
    assert len(shell) < len(inside) / 2 and compacted(outside) == compacted(inside)


@pytest.mark.parametrize("runtime", ["executorch", "tflite"])
def test_int8_is_3_7_times_smaller_on_a_real_network(runtime, tmp_path, context):
    """MobileNetV2 with 1,000 classes: all bytes of the int8 file against the weights alone of the float one."""
    architecture = Architecture(family="mobilenet_v2", outputs=1000, height=SIZE, width_pixels=SIZE)
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    tiny = tiny_checkpoint(tmp_path / "tiny", quantised=True).info
    calibration = CalibrationSet(samples=2, method="minmax")
    quantisation = tiny.quantisation.model_copy(update={"calibration": calibration})
    labels = tuple(f"class {number}" for number in range(1000))
    update = {"architecture": architecture, "labels": labels, "quantisation": quantisation}
    checkpoint = Checkpoint.save(tmp_path / "mobilenet", network, tiny.model_copy(update=update))
    with captured_output(context.log):
        artifact = converter(runtime)(checkpoint, context, tmp_path, "model")
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    weights = sum(layer.weight.numel() + layer.weight.shape[0] for layer in layers)  # with biases, which folding gives
    assert 4 * weights > 3.7 * artifact.bytes


class Normalised(nn.Module):
    """Normalisation after a convolution, after a linear layer, alone on both ranks, and a convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Linear(3, 5)
        self.first, self.second, self.alone = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.after_linear, self.flat = nn.BatchNorm1d(5), nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.alone(self.second(self.conv(self.first(self.conv(x)))).relu())
        return self.flat(self.after_linear(self.linear(x.mean((2, 3)))).relu())


def test_folding_keeps_what_is_computed():
    torch.manual_seed(0)
    network = Normalised().train()
    for _ in range(5):
        network(torch.randn(16, 3, 8, 8) * 3 + 1)
    example = torch.randn(1, 3, 8, 8)
    graph = exported_graph(network.eval(), example)
    assert not [node for node in graph.graph.nodes if "batch_norm" in str(node.target)]
    torch.testing.assert_close(graph(example), network(example), rtol=1e-4, atol=1e-5)


def test_normalisation_without_statistics_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ConversionError, match="track_running_stats=True"):
        exported_graph(network.eval(), torch.randn(1, 3, 8, 8))


def test_asking_for_the_stage_imports_no_heavy_package():
    heavy = ["torch", "executorch", "litert_torch", "onnx", "onnxruntime", "torchao"]
    code = f"import sys, phonefit.pipeline.convert.stage; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_an_unknown_runtime_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="executorch, onnx, tflite"):
        converter("coreml")
