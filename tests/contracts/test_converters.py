"""What every converter promises. A new one is tested by being listed in CONVERTERS."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from torch import nn

from phonefit.device_bench.runtimes import RUNTIMES
from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import PRECISIONS as PRECISIONS_BY_SCHEME
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.record import file_digest
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import CONVERTERS, TOOLS, converter
from phonefit.pipeline.convert.parity import check_parity, measure_parity
from phonefit.pipeline.errors import ConversionError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import ParityConfig
from phonefit.pipeline.recipe_check import RUNTIME_SCHEMES
from tests.tiny import LABELS, PREPROCESS, SIZE, tiny_checkpoint, tiny_context

PRECISIONS = ("fp32", "int8")
# Signal to noise on the tiny network, whose weights are random: int4 has 15 levels for them.
LEAST_SNR = {"int8_static": 28, "int8_dynamic": 30, "int8_weights": 32, "int4_weights": 15, "fp16": 55}
# Bytes of a float weight over those of a stored one; a linear layer of int4 is too small here to show.
LEAST_RATIO = {"int8_static": 3.3, "int8_dynamic": 3.3, "int8_weights": 3.3, "int4_weights": 3.3, "fp16": 1.8}
COMBINATIONS = [
    (runtime, scheme, granularity)
    for runtime, schemes in RUNTIME_SCHEMES.items()
    for scheme, granularities in schemes.items()
    for granularity in sorted(granularities)
    if (scheme, granularity) not in (("int8_static", "per_channel"), ("fp16", "per_tensor"))  # below; the same file
]


@dataclass
class Converted:
    checkpoint: Checkpoint
    context: Context
    artifact: Artifact
    path: Path


def convert(checkpoint, runtime, context, folder):
    folder.mkdir()
    with captured_output(context.log):
        return converter(runtime)(checkpoint, context, folder, "model")


@pytest.fixture(scope="module", params=CONVERTERS)
def runtime(request):
    return request.param


@pytest.fixture(scope="module")
def files(runtime, tmp_path_factory):
    """precision -> converted tiny network; one conversion serves all tests of this suite that only look."""
    folder = tmp_path_factory.mktemp(runtime)
    context = tiny_context(folder)
    made = {}
    for precision in PRECISIONS:
        checkpoint = tiny_checkpoint(folder / f"checkpoint-{precision}", quantised=precision == "int8")
        artifact = convert(checkpoint, runtime, context, folder / precision)
        made[precision] = Converted(checkpoint, context, artifact, folder / precision / artifact.file)
    return made


@pytest.fixture(params=PRECISIONS)
def converted(files, request):
    return files[request.param]


def test_writes_a_model_and_its_description(converted, runtime):
    assert converted.path.name == f"model{SUFFIXES[runtime]}"
    assert load_artifact(converted.path) == (converted.artifact, converted.path)
    assert sorted(path.name for path in converted.path.parent.iterdir()) == [
        converted.path.name,
        f"{converted.path.name}.json",
    ]


def test_description_says_what_an_app_needs(converted, runtime):
    artifact = converted.artifact
    assert (artifact.runtime, artifact.labels, artifact.preprocess) == (runtime, LABELS, PREPROCESS)
    assert artifact.task == "classification"
    assert artifact.bytes == converted.path.stat().st_size == sum(artifact.sections.values())
    assert artifact.tools and artifact.lineage[-1].parent == converted.checkpoint.digest
    (source,), (target,) = artifact.inputs, artifact.outputs
    assert source.shape == {"NCHW": (1, 3, SIZE, SIZE), "NHWC": (1, SIZE, SIZE, 3)}[source.layout]
    assert target.shape == (1, len(LABELS))
    for spec in (source, target):
        assert (spec.dtype == "float32") == (spec.scale is None)


def test_computes_what_the_checkpoint_computes(converted, runtime):
    figures = measure_parity(converted.path, runtime, converted.checkpoint, converted.context, 32)
    strict = converted.artifact.precision == "fp32"
    limits = ParityConfig(cosine=0.999, snr_db=90 if strict else 25, agreement=1 if strict else 0.9)
    check_parity(figures, limits, converted.path.name)


def test_runs_whole_and_without_a_forest_of_casts(converted):
    delegation = converted.artifact.delegation
    assert delegation.share in (1, None) and delegation.partitions == 1 and not delegation.rest
    assert delegation.operators >= 8  # five convolutions, an addition, a pooling, a linear layer
    # at most one cast at each end, and for ONNX Runtime one pair around its pooling in float
    assert delegation.quantise_casts <= (0 if converted.artifact.precision == "fp32" else 4)
    assert delegation.transposes <= 2


def test_int8_is_smaller(files):
    weights = {precision: made.artifact.sections["weights"] for precision, made in files.items()}
    assert weights["int8"] * 3.3 < weights["fp32"]
    assert files["int8"].artifact.bytes < files["fp32"].artifact.bytes


def test_same_checkpoint_gives_the_same_bytes(converted, runtime, tmp_path):
    again = convert(converted.checkpoint, runtime, converted.context, tmp_path / "again")
    assert again.sha256 == converted.artifact.sha256
    description = (tmp_path / "again" / f"{again.file}.json").read_bytes()
    assert description == converted.path.with_name(f"{again.file}.json").read_bytes()


def test_leaves_the_checkpoint_alone(converted, runtime, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(converted.checkpoint.directory, copy)
    before = {path.name: file_digest(path) for path in copy.iterdir()}
    convert(Checkpoint(copy), runtime, converted.context, tmp_path / "out")
    assert {path.name: file_digest(path) for path in copy.iterdir()} == before


def test_holds_no_paths_of_this_machine(converted, tmp_path_factory):
    content = converted.path.read_bytes() + converted.path.with_name(f"{converted.path.name}.json").read_bytes()
    for place in (Path(__file__).parents[2], tmp_path_factory.getbasetemp(), Path(shutil.__file__).parent):
        assert str(place).encode() not in content


def with_quantisation(checkpoint, folder, **changes):
    quantisation = checkpoint.info.quantisation.model_copy(update=changes)
    info = checkpoint.info.model_copy(update={"quantisation": quantisation})
    return Checkpoint.save(folder, checkpoint.load(), info)


@pytest.mark.parametrize(
    "layers, weights", [(("3", "4"), 16 * 9 + 16 * 16 + 32 * 16 * 9), (("4",), 32 * 16 * 9)], ids=["blocks", "between"]
)
def test_layers_can_stay_in_float(files, runtime, layers, weights, tmp_path):
    """Also a single layer between quantised ones."""
    made = files["int8"]
    mixed = with_quantisation(made.checkpoint, tmp_path / "checkpoint", float_layers=layers)
    artifact = convert(mixed, runtime, made.context, tmp_path / "out")
    grown = artifact.sections["weights"] - made.artifact.sections["weights"]
    assert grown == pytest.approx(3 * weights, rel=0.1)
    figures = measure_parity(tmp_path / "out" / artifact.file, runtime, mixed, made.context, 32)
    check_parity(figures, ParityConfig(cosine=0.999, snr_db=25), artifact.file)


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
def test_every_scheme_runs_and_is_smaller(combination, tmp_path):
    """Every entry of RUNTIME_SCHEMES: the file is run on its runtime and compared with PyTorch."""
    runtime, scheme, granularity = combination
    context, checkpoint = tiny_context(tmp_path), tiny_checkpoint(tmp_path / "tiny", quantised=True)
    asked = with_quantisation(checkpoint, tmp_path / "checkpoint", scheme=scheme, granularity=granularity)
    artifact = convert(asked, runtime, context, tmp_path / "out")
    figures = measure_parity(tmp_path / "out" / artifact.file, runtime, asked, context, 32)
    check_parity(figures, ParityConfig(cosine=0.98, snr_db=LEAST_SNR[scheme], agreement=0.8), artifact.file)
    assert artifact.precision == PRECISIONS_BY_SCHEME[scheme]
    float_bytes = 4 * sum(parameter.numel() for parameter in checkpoint.load().parameters())
    depthwise = 16 * 9 * 4 if runtime == "executorch" and scheme in ("int8_dynamic", "int4_weights") else 0
    assert (artifact.sections["weights"] - depthwise) * LEAST_RATIO[scheme] < float_bytes
    left_out = {"dim_order_ops::_to_dim_order_copy"} if scheme == "fp16" else set()  # float16 at both ends of a .pte
    assert set(artifact.delegation.rest) <= left_out and artifact.delegation.partitions == 1
    in_float = scheme in ("int8_dynamic", "int4_weights") and (runtime, scheme) != ("onnx", "int4_weights")
    assert [note.partition(" (3.depthwise)")[1] for note in artifact.notes] == [" (3.depthwise)"] * in_float


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_ranges_follow_the_calibration_method(files, runtime, method, tmp_path):
    """The default is mse. Half of all values cut is far too much, which shows that the percentile arrives."""
    made = files["int8"]
    calibration = CalibrationSet(samples=16, method=method, percentile=60)
    other = with_quantisation(made.checkpoint, tmp_path / "checkpoint", calibration=calibration)
    artifact = convert(other, runtime, made.context, tmp_path / "out")
    figures, usual = (
        measure_parity(path, runtime, checkpoint, made.context, 32)
        for path, checkpoint in ((tmp_path / "out" / artifact.file, other), (made.path, made.checkpoint))
    )
    if method == "minmax":
        assert artifact.sha256 != made.artifact.sha256 and figures.snr_db > 25
    else:
        assert figures.snr_db < usual.snr_db - 10


def test_normalisation_that_cannot_be_folded_is_named(runtime, tmp_path):
    tiny, context = tiny_checkpoint(tmp_path / "tiny", quantised=True), tiny_context(tmp_path)
    architecture = tiny.info.architecture.model_copy(update={"factory": f"{__name__}:unfoldable"})
    for name, quantisation in (("float", None), ("int8", tiny.info.quantisation)):
        info = tiny.info.model_copy(update={"architecture": architecture, "quantisation": quantisation})
        checkpoint = Checkpoint.save(tmp_path / name, unfoldable(len(LABELS)).eval(), info)
        with pytest.raises(ConversionError, match=r"normalisation is left in the graph: batch_statistics;"):
            convert(checkpoint, runtime, context, tmp_path / f"out-{name}")


def unfoldable(outputs: int):
    """Normalises by the statistics of the batch that it sees, not by constants."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2))
    network.add_module("batch_statistics", nn.BatchNorm2d(8, track_running_stats=False))
    for name, layer in (("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("head", nn.Linear(8, outputs))):
        network.add_module(name, layer)
    return network


def test_a_runtime_is_in_every_table():
    assert set(CONVERTERS) == set(TOOLS) == set(RUNTIMES) == set(SUFFIXES) == set(RUNTIME_SCHEMES)
    assert set(CONVERTERS) == set(get_args(Runtime))


def test_an_unknown_layer_is_refused_with_the_known_ones(files, runtime, tmp_path):
    made = files["int8"]
    wrong = with_quantisation(made.checkpoint, tmp_path / "checkpoint", float_layers=("3.depthwise", "body.9"))
    with pytest.raises(ConversionError, match=r"body\.9.*3\.depthwise"):
        convert(wrong, runtime, made.context, tmp_path / "out")
