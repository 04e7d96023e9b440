"""The conversion stage: one checkpoint to one file for one runtime, kept in the store with its parity."""

import traceback
from pathlib import Path

from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.record import Record
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import converter, tools
from phonefit.pipeline.errors import ConversionError, PhonefitError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import ConvertConfig
from phonefit.pipeline.result import Parity
from phonefit.pipeline.store import StageResult, explain_disk_errors

CODE_VERSION = 1
MODEL_NAME = "model"
PARITY_FILE = "parity.json"


class ParityRecord(Record):
    """Content of parity.json: the figures, without a verdict, so that another limit needs no new conversion."""

    schema_number: int = 1
    parity: Parity


def convert_stage(
    checkpoint: Checkpoint, runtime: Runtime, context: Context, config: ConvertConfig
) -> tuple[StageResult, Artifact, Path, Parity]:
    """Convert, compare with the PyTorch model, and hold parity and delegation against the limits.

    What converters print goes to the context's log.

    Returns:
        The stage result, the description, the path of the model file, and the parity.

    Raises:
        ConversionError: the converter failed, or less than `least_delegated` of the operators is delegated.
        ParityError: the file does not compute what the checkpoint computes.
    """
    # imported here: parity needs the runtimes, and what only checks a recipe needs neither
    from phonefit.pipeline.convert.delegation import check_delegation
    from phonefit.pipeline.convert.parity import check_parity

    precision = "fp32" if checkpoint.info.quantisation is None else "int8"
    name = f"{SUFFIXES[runtime]} {precision}"
    samples = config.parity.samples

    def build(folder: Path) -> None:
        with context.progress.stage(f"converting to {name}"):
            _convert(checkpoint, runtime, context, folder, samples, name)

    result = context.store.compute(
        "convert",
        inputs={"checkpoint": checkpoint.digest, "data": context.data.digest},
        config={"runtime": runtime, "parity_samples": samples},
        code_version=CODE_VERSION,
        build=build,
        tools=tools(runtime),
    )
    artifact, path = load_artifact(result.path / f"{MODEL_NAME}{SUFFIXES[runtime]}")
    parity = ParityRecord.load(result.path / PARITY_FILE).parity
    check_parity(parity, config.parity, name)
    if artifact.delegation is not None:
        check_delegation(artifact.delegation, config.least_delegated, name)
    return result, artifact, path, parity


def _convert(checkpoint: Checkpoint, runtime: Runtime, context: Context, folder: Path, samples: int, name: str) -> None:
    """Write model, description and parity into `folder`; any failure of a library becomes a ConversionError."""
    from phonefit.pipeline.convert.parity import measure_parity

    with captured_output(context.log, f"converting {checkpoint.digest[:12]} to {name}"):
        try:
            with explain_disk_errors(context.store.root):
                converter(runtime)(checkpoint, context, folder, MODEL_NAME)
                parity = measure_parity(
                    folder / f"{MODEL_NAME}{SUFFIXES[runtime]}", runtime, checkpoint, context, samples
                )
                ParityRecord(parity=parity).save(folder / PARITY_FILE)
        except PhonefitError:
            raise
        except Exception as error:  # converters raise whatever their dozens of parts raise
            traceback.print_exc()
            raise ConversionError(
                f"{name}: the converter failed: {first_line(error)}. The whole output is in {context.log}"
            ) from error


def first_line(error: BaseException) -> str:
    """Type of an error and the first line of its message that says something."""
    lines = (line.strip(" \t-=*#") for line in str(error).splitlines())
    said = next((line for line in lines if line), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
