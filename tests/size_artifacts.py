"""Files of the tiny network in all formats, made by the converters, for the tests that take files apart."""

from pathlib import Path

from phonefit.models.artifact import SUFFIXES, Runtime
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.spec import Architecture
from phonefit.pipeline.convert import converter
from phonefit.pipeline.quiet import captured_output
from tests.tiny import LABELS, PREPROCESS, SIZE, TinyPictures, build, tiny_checkpoint, tiny_context

RUNTIMES: tuple[Runtime, ...] = ("executorch", "tflite", "onnx")
WIDE = 24  # channels of the wider network; the other has 16


def wide_checkpoint(folder: Path) -> Checkpoint:
    """The tiny network with half as many channels more."""
    import torch

    torch.manual_seed(0)
    network = build(len(LABELS), WIDE).train()
    with torch.no_grad():
        network(torch.from_numpy(TinyPictures().inputs("train", 0, 48)))
    architecture = Architecture(
        factory="tests.tiny:build", arguments={"channels": WIDE}, outputs=len(LABELS), height=SIZE, width_pixels=SIZE
    )
    info = CheckpointInfo(architecture=architecture, task="classification", labels=LABELS, preprocess=PREPROCESS)
    return Checkpoint.save(folder, network.eval(), info)


def write_artifacts(folder: Path) -> dict[str, bytes]:
    """Contents by name: "int8.tflite", "float.onnx", "wide.pte", "again.pte" (int8 once more), "other.tflite" …"""
    context = tiny_context(folder)
    checkpoints = {
        "float": tiny_checkpoint(folder / "float"),
        "int8": tiny_checkpoint(folder / "int8", quantised=True),
        "again": tiny_checkpoint(folder / "again", quantised=True),
        "other": tiny_checkpoint(folder / "other", quantised=True, seed=1),
        "wide": wide_checkpoint(folder / "wide"),
    }
    found = {}
    for name, checkpoint in checkpoints.items():
        for runtime in RUNTIMES:
            with captured_output(folder / "log.txt"):
                converter(runtime)(checkpoint, context, folder, name)
            file = name + SUFFIXES[runtime]
            found[file] = (folder / file).read_bytes()
    return found | {"plain.pte": _not_delegated(checkpoints["float"], folder / "log.txt")}


def _not_delegated(checkpoint: Checkpoint, log: Path) -> bytes:
    """The float network with ExecuTorch's own kernels instead of XNNPACK's."""
    import torch
    from executorch.exir import to_edge_transform_and_lower

    with captured_output(log):
        program = torch.export.export(checkpoint.load(), (torch.zeros(1, 3, SIZE, SIZE),), strict=False)
        return bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
