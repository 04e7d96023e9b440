"""The description of a converted file: what can be read back from it, and where it comes from."""

import math
from pathlib import Path

from phonefit.device_bench.runtimes import runtime_module
from phonefit.models.artifact import Artifact, Lineage, Runtime
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.decoding import ClassificationDecoding
from phonefit.models.quantisation import precision_of
from phonefit.models.record import file_digest
from phonefit.models.spec import Layout
from phonefit.pipeline.convert import tools
from phonefit.pipeline.convert.delegation import delegation_of
from phonefit.pipeline.convert.sections import sections_of
from phonefit.pipeline.errors import ConversionError

PICTURE_AXES = 4
"""Of an output that is a picture: as PyTorch has it, whatever the layout of the input."""


def input_shape(checkpoint: Checkpoint) -> tuple[int, int, int, int]:
    """(1, 3, height, width) of one input of this checkpoint."""
    preprocess = checkpoint.info.preprocess
    return 1, 3, preprocess.height, preprocess.width


def describe(
    path: Path, runtime: Runtime, checkpoint: Checkpoint, layout: Layout, notes: tuple[str, ...] = ()
) -> Artifact:
    """Describe a converted file and write the description beside it as FILE.json.

    Shapes, dtypes, scales and zero points are read back through the runtime, so they are those of the file.

    Args:
        layout: of the input.
        notes: what the person should know about this file.

    Raises:
        ConversionError: the file does not take one input, or its outputs together have another size than expected.
    """
    session = runtime_module(runtime).load(path, threads=1)
    outputs = checkpoint.info.architecture.outputs
    shapes = [spec.shape for spec in session.outputs]
    fits = sum(map(math.prod, shapes)) == outputs and all(len(shape) > 1 and shape[0] == 1 for shape in shapes)
    if len(session.inputs) != 1 or not fits:
        raise ConversionError(
            f"{path.name} has inputs {[spec.shape for spec in session.inputs]} and outputs {shapes}; expected one "
            f"input, and outputs of one picture and {outputs} values: forward() must take one picture and return one "
            "tensor [N, outputs]"
        )
    info = checkpoint.info
    precision = precision_of(info.quantisation)
    delegation = delegation_of(path, runtime)
    step = Lineage(parent=checkpoint.digest, stage="convert", config={"runtime": runtime, "precision": precision})
    artifact = Artifact(
        file=path.name,
        runtime=runtime,
        backend=delegation.backend,
        precision=precision,
        sha256=file_digest(path),
        bytes=path.stat().st_size,
        inputs=tuple(spec.model_copy(update={"layout": layout}) for spec in session.inputs),
        outputs=tuple(
            spec.model_copy(update={"layout": "NCHW"}) if len(spec.shape) == PICTURE_AXES else spec
            for spec in session.outputs
        ),
        task=info.task,
        labels=info.labels,
        preprocess=info.preprocess,
        decoding=info.decoding or ClassificationDecoding(),
        sections=sections_of(path, runtime),
        delegation=delegation,
        notes=notes,
        tools=tools(runtime),
        lineage=(*info.lineage, step),
    )
    artifact.save(path.with_name(f"{path.name}.json"))
    return artifact
