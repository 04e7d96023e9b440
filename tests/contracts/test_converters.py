"""What every converter promises. A new one is tested by being listed in CONVERTERS."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from phonefit.device_bench.runtimes import RUNTIMES
from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint
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


def test_layers_can_stay_in_float(files, runtime, tmp_path):
    made = files["int8"]
    mixed = with_quantisation(made.checkpoint, tmp_path / "checkpoint", float_layers=("3", "4"))
    artifact = convert(mixed, runtime, made.context, tmp_path / "out")
    weights = 16 * 9 + 16 * 16 + 32 * 16 * 9  # of block 3 and layer 4
    grown = artifact.sections["weights"] - made.artifact.sections["weights"]
    assert grown == pytest.approx(3 * weights, rel=0.1)
    figures = measure_parity(tmp_path / "out" / artifact.file, runtime, mixed, made.context, 32)
    check_parity(figures, ParityConfig(cosine=0.999, snr_db=25), artifact.file)


def test_one_scale_per_tensor(files, runtime, tmp_path):
    made = files["int8"]
    coarse = with_quantisation(made.checkpoint, tmp_path / "checkpoint", granularity="per_tensor")
    artifact = convert(coarse, runtime, made.context, tmp_path / "out")
    assert artifact.bytes < made.artifact.bytes  # one scale a tensor instead of one a channel
    figures = measure_parity(tmp_path / "out" / artifact.file, runtime, coarse, made.context, 32)
    check_parity(figures, ParityConfig(cosine=0.99, snr_db=15), artifact.file)


def test_a_runtime_is_in_every_table():
    assert set(CONVERTERS) == set(TOOLS) == set(RUNTIMES) == set(SUFFIXES) == set(RUNTIME_SCHEMES)
    assert set(CONVERTERS) == set(get_args(Runtime))


def test_an_unknown_layer_is_refused_with_the_known_ones(files, runtime, tmp_path):
    made = files["int8"]
    wrong = with_quantisation(made.checkpoint, tmp_path / "checkpoint", float_layers=("3.depthwise", "body.9"))
    with pytest.raises(ConversionError, match=r"body\.9.*3\.depthwise"):
        convert(wrong, runtime, made.context, tmp_path / "out")
