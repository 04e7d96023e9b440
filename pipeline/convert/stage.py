"""The conversion stage: one checkpoint to one file for one runtime, and its parity, each kept in the store."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.errors import first_line
from phonefit.models.record import Record
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import converter, file_format, tools
from phonefit.pipeline.errors import ConversionError, PhonefitError
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import ConvertConfig
from phonefit.pipeline.result import Parity
from phonefit.pipeline.store import StageResult, explain_disk_errors

CODE_VERSION = 4
PARITY_CODE_VERSION = 1
MODEL_NAME = "model"
PARITY_FILE = "parity.json"


class ParityRecord(Record):
    """Content of parity.json: the figures, without a verdict, so that another limit needs no new comparison."""

    schema_number: int = 1
    parity: Parity


def convert_stage(
    checkpoint: Checkpoint, runtime: Runtime, context: Context, config: ConvertConfig
) -> tuple[StageResult, Artifact, Path, Parity]:
    """Convert, compare with the PyTorch model, and hold parity and delegation against the limits.

    What converters print goes to the context's log.

    Returns:
        The stage result of the conversion, the description, the path of the model file, and the parity.

    Raises:
        ConversionError: the converter failed.
        DelegationError: less than `least_delegated` of the operators is delegated.
        ParityError: the file does not compute what the checkpoint computes.
    """
    # imported here: parity needs the runtimes, and what only checks a recipe needs neither
    from phonefit.pipeline.convert.delegation import check_delegation
    from phonefit.pipeline.convert.parity import check_parity

    name = file_format(checkpoint, runtime)
    result = converted(checkpoint, runtime, context)
    artifact, path = load_artifact(result.path / f"{MODEL_NAME}{SUFFIXES[runtime]}")
    parity = _compared(checkpoint, artifact, path, context, config.parity.samples, name)
    check_parity(parity, config.parity, name)
    if artifact.delegation is not None:
        check_delegation(artifact.delegation, config.least_delegated, name)
    return result, artifact, path, parity


def converted(checkpoint: Checkpoint, runtime: Runtime, context: Context) -> StageResult:
    """Convert only: the file and its description, under MODEL_NAME, without a comparison.

    Raises:
        ConversionError: the converter failed.
    """
    name = file_format(checkpoint, runtime)
    inputs = {"checkpoint": checkpoint.digest}
    quantisation = checkpoint.info.quantisation
    if quantisation is not None and quantisation.calibrated:  # reads pictures; which ones is a part of the checkpoint
        inputs["data"] = context.data.digest

    def build(folder: Path) -> None:
        with context.progress.stage(f"converting to {name}"), _explained(checkpoint, context, name, "converter"):
            converter(runtime)(checkpoint, context, folder, MODEL_NAME)

    return context.store.compute("convert", inputs, {"runtime": runtime}, CODE_VERSION, build, tools(runtime))


def _compared(
    checkpoint: Checkpoint, artifact: Artifact, path: Path, context: Context, samples: int, name: str
) -> Parity:
    from phonefit.pipeline.convert.parity import measure_parity

    def build(folder: Path) -> None:
        title = f"comparing {name} with PyTorch"
        with context.progress.stage(title), _explained(checkpoint, context, name, "comparison with PyTorch"):
            parity = measure_parity(path, artifact.runtime, checkpoint, context, samples)
            ParityRecord(parity=parity).save(folder / PARITY_FILE)

    result = context.store.compute(
        "parity",
        inputs={"artifact": artifact.sha256, "checkpoint": checkpoint.digest, "data": context.data.digest},
        config={"samples": samples},
        code_version=PARITY_CODE_VERSION,
        build=build,
        tools=tools(artifact.runtime),
    )
    return ParityRecord.load(result.path / PARITY_FILE).parity


@contextmanager
def _explained(checkpoint: Checkpoint, context: Context, name: str, what: str) -> Iterator[None]:
    """Send what libraries print to the log; any failure of theirs becomes a ConversionError."""
    with captured_output(context.log, f"{what}: {checkpoint.digest[:12]} to {name}"):
        try:
            with explain_disk_errors(context.store.root):
                yield
        except PhonefitError:
            raise
        except Exception as error:  # libraries raise whatever their dozens of parts raise
            traceback.print_exc()
            raise ConversionError(
                f"{name}: the {what} failed: {first_line(error)}. The whole output is in {context.log}"
            ) from error
