"""A run's files as `phonefit run` leaves them, made of the small networks of tests/foreign_models.py."""

from pathlib import Path

from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import Artifact
from phonefit.models.record import file_digest
from phonefit.models.spec import Preprocess
from phonefit.pipeline.convert import tools
from tests.foreign_models import quantised_tflite, small_model


def described(model: Path, runtime: str, precision: str) -> Path:
    """Write the description beside a model."""
    session = runtime_module(runtime).load(model, 1)
    Artifact(
        file=model.name,
        runtime=runtime,
        backend="XNNPACK",
        precision=precision,
        sha256=file_digest(model),
        bytes=model.stat().st_size,
        inputs=session.inputs,
        outputs=session.outputs,
        task="classification",
        labels=("a", "b", "c", "d"),
        preprocess=Preprocess(height=16, width=16, mean=(0, 0, 0), std=(255, 255, 255)),
        tools=tools(runtime),
    ).save(model.with_name(f"{model.name}.json"))
    return model


def run_folder(runs: Path, name: str = "small") -> Path:
    """A run with a float file for each runtime and an int8 one; returns the folder of its files."""
    folder = runs / name / "files"
    folder.mkdir(parents=True)
    for runtime in ("executorch", "tflite", "onnx"):
        described(small_model(folder, runtime), runtime, "fp32")
    described(quantised_tflite(folder), "tflite", "int8")
    return folder
