"""The job for a model file and the files that travel with it: its input, and what this machine computes from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from phonefit.device_bench.app_job import INPUTS, MODELS, AppEnergy, AppExpected, AppInput, AppJob
from phonefit.device_bench.device import Job
from phonefit.device_bench.host import HostDevice
from phonefit.device_bench.inputs import stored_bytes
from phonefit.device_bench.runtimes.runtime import Array
from phonefit.models.artifact import SUFFIXES, Artifact, Runtime
from phonefit.models.record import file_digest

# Kernels that only add up whole numbers give the same on every processor; sums of floats depend on their order.
_EXACT, _SUMS_OF_FLOATS = 0.0, 1e-4
# ONNX Runtime's integer kernels round in another way on each processor (docs/devices.md); ranges that are taken while
# running, and arithmetic in float16, carry small differences on.
_OWN_ROUNDING = 0.03


@dataclass(frozen=True)
class Parcel:
    """A job and its files: path on the phone -> file here."""

    job: AppJob
    files: Mapping[str, Path]


def pack(
    job: Job, folder: Path, *, on_phone: str | None = None, reference: int = 0, energy: AppEnergy | None = None
) -> Parcel:
    """The parcel for a job; what its output should be comes from one inference on this machine.

    Args:
        folder: takes the files that are made here; they must stay until they are copied.
        on_phone: path of the model and, with ".json" behind it, of its description, where they are on the phone
            already; None sends them along.
        reference: as in `AppJob`.

    Raises:
        FileFormatError: the file is no model of its runtime, or its description is not one.
        DeviceError: the job's input does not fit.
        MeasurementError: the runtime crashes or gives up on this machine.
    """
    inputs, outputs = _compute_here(job, folder)
    described = job.model.with_name(job.model.name + ".json")
    artifact = Artifact.load(described) if described.is_file() else None
    digest = file_digest(job.model)
    # a job's result stays on the phone under its name: never the same name twice
    name = f"{digest[:12]}-{uuid4().hex[:12]}"
    model = on_phone or f"{MODELS}/{name}{SUFFIXES[job.runtime]}"
    description = f"{model}.json" if artifact else None
    files = {} if on_phone else {model: job.model} | ({description: described} if description else {})
    sent, wanted = (_write(folder, name, kind, arrays) for kind, arrays in (("input", inputs), ("expected", outputs)))
    precision = artifact.precision if artifact else None
    return Parcel(
        job=AppJob(
            id=name,
            model=model,
            description=description,
            sha256=digest,
            bytes=job.model.stat().st_size,
            runtime=job.runtime,
            threads=job.threads,
            warmups=job.warmups,
            repeats=job.repeats,
            seconds=job.duration_seconds,
            reference=reference,
            inputs=tuple(item for item, _ in sent),
            expected=tuple(
                AppExpected(**dict(item), tolerance=tolerance(item.dtype, job.runtime, precision)) for item, _ in wanted
            ),
            energy=energy,
        ),
        files={**files, **{item.path: path for item, path in (*sent, *wanted)}},
    )


def tolerance(dtype: str, runtime: Runtime, precision: str | None) -> float:
    """How far an output on a phone may lie from the same on this machine, as a share of its range. Pure.

    Args:
        dtype: of the output.
        precision: as in `Artifact`; None where nobody knows.
    """
    if precision == "fp32":
        return _SUMS_OF_FLOATS
    if precision in (None, "int8") and runtime != "onnx":
        return _EXACT if dtype in ("int8", "uint8") else _SUMS_OF_FLOATS
    return _OWN_ROUNDING


def _compute_here(job: Job, folder: Path) -> tuple[list[Array], list[Array]]:
    """Inputs and outputs of one inference on this machine, in a process of its own: a damaged file may crash it."""
    target = folder / "computed.npz"
    once = Job(model=job.model, runtime=job.runtime, warmups=0, repeats=1, seed=job.seed, input_file=job.input_file)
    HostDevice(lambda runtime: None).run(once.model_copy(update={"output_file": target}))
    with np.load(target, allow_pickle=False) as found:
        count = {kind: sum(name.startswith(kind) for name in found) for kind in ("input", "output")}
        inputs, outputs = ([found[f"{kind}_{index}"] for index in range(count[kind])] for kind in count)
    return inputs, outputs


def _write(folder: Path, name: str, kind: str, arrays: list[Array]) -> list[tuple[AppInput, Path]]:
    written = []
    for index, array in enumerate(arrays):
        path = folder / f"{name}.{kind}_{index}.bin"
        path.write_bytes(stored_bytes(array))
        item = AppInput(
            path=f"{INPUTS}/{path.name}", sha256=file_digest(path), dtype=array.dtype.name, shape=array.shape
        )
        written.append((item, path))
    return written
