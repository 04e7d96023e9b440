"""Quality of a converted file on its own runtime: of the file that ships, not of the PyTorch model."""

import json
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import Artifact
from phonefit.models.data.dataset import Side
from phonefit.models.decoding import Decoding
from phonefit.models.record import Record, write_atomically
from phonefit.models.tasks.task import Floats, Metrics, metrics_with_interval
from phonefit.pipeline.context import Context
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.store import StageResult

CODE_VERSION = 1
DECODING_FILE, OUTPUTS_FILE = "decoding.json", "outputs.npy"
BATCH = 32  # pictures normalised at once; the files themselves take one


class ChosenDecoding(Record):
    """Content of decoding.json: how the file's outputs are read, with what was chosen on the validation side."""

    schema_number: int = 1
    decoding: Decoding


def with_chosen_decoding(artifact: Artifact, evaluated: StageResult) -> Artifact:
    """The artifact, read as its evaluation on the validation side chose."""
    path = evaluated.path / DECODING_FILE
    return artifact.model_copy(update={"decoding": ChosenDecoding.load(path).decoding}) if path.is_file() else artifact


def stored_outputs(evaluated: StageResult) -> Floats | None:
    """Outputs of the file, float32 [N, outputs]; None in results from before they were kept."""
    path = evaluated.path / OUTPUTS_FILE
    return np.load(path) if path.is_file() else None


def evaluate_file(artifact: Artifact, model: Path, side: Side, context: Context) -> tuple[StageResult, Metrics]:
    """Metrics of a converted file over one side of the data.

    On the validation side, what the task chooses there (such as thresholds) is chosen for this file: see
    `with_chosen_decoding`. On the others it is as the artifact says.

    Raises:
        FileFormatError: the runtime cannot load the file.
    """
    runtime = runtime_module(artifact.runtime)

    def build(destination: Path) -> None:
        with captured_output(context.log):
            session = runtime.load(model, context.threads)
        targets = context.data.targets(side)
        outputs = []
        with context.progress.stage(
            f"evaluate {artifact.runtime} {artifact.precision}, {side}", len(targets)
        ) as advance:
            for start in range(0, len(targets), BATCH):
                inputs = context.data.inputs(side, start, min(start + BATCH, len(targets)))
                outputs.append(run_samples(session, inputs))
                advance(len(inputs))
            advance(0, "judging")  # which takes seconds where an interval is that of average precisions
            joined, task = np.concatenate(outputs), context.task.read_by(artifact.decoding)
            if side == "validation":
                task = task.calibrated(joined, targets)
            np.save(destination / OUTPUTS_FILE, joined)
            if task.decoding is not None:
                ChosenDecoding(decoding=task.decoding).save(destination / DECODING_FILE)
            metrics = metrics_with_interval(task, joined, targets)
        write_atomically(destination / "metrics.json", json.dumps(dict(metrics), sort_keys=True).encode())

    config: dict[str, JsonValue] = {"side": side, "task": context.task_identity}
    if context.task.decoding is not None and side != "validation":
        config["decoding"] = artifact.decoding.as_json()
    result = context.store.compute(
        "evaluate",
        inputs={"artifact": artifact.sha256, "data": context.data.digest},
        config=config,
        code_version=CODE_VERSION,
        build=build,
        tools=runtime.versions(),
    )
    metrics = json.loads((result.path / "metrics.json").read_text())
    return result, {str(name): float(value) for name, value in metrics.items()}
