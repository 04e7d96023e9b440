"""How close a converted file is to the PyTorch model that it was made from, on real samples.

A wrong file converts without a word; nothing but running it shows that it is wrong.
"""

from pathlib import Path

import numpy as np

from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import Runtime
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.tasks.task import Floats, Task
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import file_format
from phonefit.pipeline.errors import ParityError
from phonefit.pipeline.recipe import ParityConfig
from phonefit.pipeline.result import Parity


def parity(reference: Floats, converted: Floats, task: Task, name: str) -> Parity:
    """Compare outputs of the same samples.

    cosine: a . b / (|a| |b|) of all outputs as one vector; 1 where both are zero. Not the worst sample's: the few
    logits of an undecided sample are near zero, and their direction is noise.
    snr_db: 10 log10(sum of reference^2 / sum of (reference - converted)^2), over all samples.
    agreement: share of samples that a person would be told the same about.

    Args:
        reference: float32 [N, K] of the PyTorch model.
        converted: float32 [N, K] of the file.
        name: what errors call the file.

    Raises:
        ParityError: another shape, or values that are not finite.
    """
    if reference.shape != converted.shape or reference.ndim != 2 or not len(reference):
        raise ParityError(
            f"{name}: outputs of {list(converted.shape)} against {list(reference.shape)} of the PyTorch model; "
            "both must be [samples, outputs] with at least one sample"
        )
    if not np.isfinite(converted).all():
        broken = int((~np.isfinite(converted)).any(axis=1).sum())
        raise ParityError(
            f"{name}: {broken} of {len(converted)} samples give values that are not finite; "
            "the conversion broke the model"
        )
    ours, theirs = reference.astype(np.float64), converted.astype(np.float64)
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    both_zero = not ours.any() and not theirs.any()
    cosine = float((ours * theirs).sum()) / lengths if lengths > 0 else float(both_zero)
    signal, noise = float((ours**2).sum()), float(((ours - theirs) ** 2).sum())
    return Parity(
        samples=len(ours),
        cosine=min(1.0, max(-1.0, cosine)),
        snr_db=10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise)) if noise > 0 else None,
        agreement=float(task.agree(reference, converted).mean()),
    )


def check_parity(parity: Parity, limits: ParityConfig, name: str) -> None:
    """Hold the figures against the limits.

    Raises:
        ParityError: naming the file, each figure that is missed and its limit, and what to do.
    """
    noise = float("inf") if parity.snr_db is None else parity.snr_db
    figures = (
        ("cosine", parity.cosine, limits.cosine, ""),
        ("snr_db", noise, limits.snr_db, " dB"),
        ("agreement", parity.agreement, limits.agreement, ""),
    )
    missed = [
        f"{figure} {value:.4g}{unit} is below the limit {limit:g}{unit}"
        for figure, value, limit, unit in figures
        if value < limit
    ]
    if missed:
        raise ParityError(
            f"{name} does not compute what its PyTorch model computes: {'; '.join(missed)} (over {parity.samples} "
            "samples). Calibrate with more samples (quantise.calibration.samples), keep sensitive layers in float "
            "(quantise.float_layers), or, if the quality of the file is good enough, lower the limits in convert.parity"
        )


def reference_outputs(checkpoint: Checkpoint, context: Context, count: int) -> Floats:
    """Outputs of the PyTorch model in float on `parity_samples`, as a file gives them: float32 [n, K]."""
    import torch

    torch.set_num_threads(context.threads)
    network = checkpoint.load()
    samples = parity_samples(context, count)
    with torch.inference_mode():
        outputs = [network(torch.from_numpy(sample)) for sample in np.split(samples, len(samples))]
    return context.task.as_exported(np.concatenate([output.numpy() for output in outputs]).astype(np.float32))


def measure_parity(path: Path, runtime: Runtime, checkpoint: Checkpoint, context: Context, count: int) -> Parity:
    """Run a converted file and its PyTorch model on `count` samples of the validation side (all, if it has fewer).

    Raises:
        ParityError: the outputs cannot be compared; names the format.
    """
    reference = reference_outputs(checkpoint, context, count)
    session = runtime_module(runtime).load(path, threads=1)
    converted = run_samples(session, parity_samples(context, count))
    return parity(reference, converted, context.task, file_format(checkpoint, runtime))


def parity_samples(context: Context, count: int) -> Floats:
    """`count` samples of the validation side, evenly spaced because its rows are sorted by class; float32 [n, 3, h, w].

    All of them, when it has fewer.
    """
    rows = len(context.data.targets("validation"))
    chosen = np.linspace(0, rows - 1, min(count, rows), dtype=np.int64).tolist()
    return np.concatenate([context.data.inputs("validation", row, row + 1) for row in chosen])
