"""Quality of a converted file on its own runtime: of the file that ships, not of the PyTorch model."""

import json
from pathlib import Path

import numpy as np

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import Artifact
from phonefit.models.data.dataset import Side
from phonefit.models.record import write_atomically
from phonefit.pipeline.context import Context, Metrics
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.store import StageResult

CODE_VERSION = 1
BATCH = 32  # pictures normalised at once; the files themselves take one


def evaluate_file(artifact: Artifact, model: Path, side: Side, context: Context) -> tuple[StageResult, Metrics]:
    """Metrics of a converted file over one side of the data.

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
        metrics = context.task.metrics(np.concatenate(outputs), targets)
        write_atomically(destination / "metrics.json", json.dumps(dict(metrics), sort_keys=True).encode())

    result = context.store.compute(
        "evaluate",
        inputs={"artifact": artifact.sha256, "data": context.data.digest},
        config={"side": side, "task": context.task.name},
        code_version=CODE_VERSION,
        build=build,
        tools=runtime.versions(),
    )
    metrics = json.loads((result.path / "metrics.json").read_text())
    return result, {str(name): float(value) for name, value in metrics.items()}
