"""Artifact: one converted file and everything needed to run it. Written as NAME.json beside the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, model_validator

from phonefit.models.decoding import ClassificationDecoding, Decoding, DetectionDecoding, MultiLabelDecoding
from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen, Record, file_digest
from phonefit.models.spec import Preprocess, TensorSpec

Runtime = Literal["executorch", "tflite", "onnx"]
SUFFIXES: dict[Runtime, str] = {"executorch": ".pte", "tflite": ".tflite", "onnx": ".onnx"}


class Delegation(Frozen):
    """How much of the graph the fast backend takes.

    Attributes:
        backend: for example "XNNPACK" or "CPUExecutionProvider".
        operators: operators in the graph that do work at inference time.
        delegated: how many of them the backend runs; None where a runtime has nothing beside its backend to tell from.
        partitions: number of pieces handed to the backend; fewer is better.
        rest: operator name -> count, of those left out.
        transposes: layout changes in the graph.
        quantise_casts: quantise and dequantise operators left in the graph.
    """

    backend: str
    operators: int
    delegated: int | None
    partitions: int
    rest: Mapping[str, int] = {}
    transposes: int = 0
    quantise_casts: int = 0

    @property
    def share(self) -> float | None:
        """Delegated share of the operators, 0..1; None where it cannot be told."""
        if self.delegated is None:
            return None
        return self.delegated / self.operators if self.operators else 0.0


class Lineage(Frozen):
    """Where something came from."""

    parent: str  # digest
    stage: str
    config: Mapping[str, JsonValue] = {}


class Artifact(Record):
    """Description of a converted file.

    Attributes:
        file: name of the file, in the same folder as this description.
        precision: "fp32" or that of its quantisation, as in PRECISIONS of models/quantisation.py.
        sections: bytes by section, as far as the converter knows them.
        inputs: in the order in which the runtime takes them.
        decoding: how the outputs are read.
        notes: what a person should know about this file: layers that compute in float against the rule, and why.
    """

    schema_number: int = 1
    file: str
    runtime: Runtime
    backend: str
    precision: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    decoding: Decoding = ClassificationDecoding()
    sections: Mapping[str, int] = {}
    delegation: Delegation | None = None
    tools: Mapping[str, str] = {}
    lineage: tuple[Lineage, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _decoding_fits(self) -> "Artifact":
        if isinstance(self.decoding, MultiLabelDecoding) and len(self.decoding.thresholds) != len(self.labels):
            raise ValueError(f"{len(self.decoding.thresholds)} thresholds for {len(self.labels)} labels")
        if isinstance(self.decoding, DetectionDecoding) and max(self.decoding.boxes, self.decoding.scores) >= len(
            self.outputs
        ):
            raise ValueError(f"boxes and scores are not among the {len(self.outputs)} outputs")
        return self


def load_artifact(path: Path) -> tuple[Artifact, Path]:
    """Read an artifact by its JSON or by its model file; returns it with the model file's path.

    Raises:
        FileFormatError: a part is missing, or the model file is not the one that was described.
    """
    description = path if path.suffix == ".json" else path.with_name(path.name + ".json")
    artifact = Artifact.load(description)
    model = description.with_name(artifact.file)
    if not model.is_file():
        raise FileFormatError(f"{model}: missing, but {description.name} describes it; convert again")
    if file_digest(model) != artifact.sha256:
        raise FileFormatError(f"{model}: changed since {description.name} was written; convert again")
    return artifact, model
