"""TensorSpecs from what the runtimes say about a file, completed from phonefit's description beside it."""

from collections.abc import Sequence
from pathlib import Path

from phonefit.device_bench.device import DeviceError
from phonefit.models.artifact import Artifact
from phonefit.models.errors import FileFormatError
from phonefit.models.spec import Layout, TensorSpec

_COLOURS = (1, 3)


def guess_layout(shape: Sequence[int]) -> Layout:
    """Layout of a picture-like input [N, ., ., .] with 1 or 3 channels; "other" when the shape does not tell."""
    if len(shape) != 4 or (shape[1] in _COLOURS) == (shape[3] in _COLOURS):
        return "other"
    return "NCHW" if shape[1] in _COLOURS else "NHWC"


def with_layouts(path: Path, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Give the inputs of a model file their layout, from NAME.json beside the file where there is one, else guessed.

    The scale and zero point are taken from there too for formats whose file cannot tell them.
    """
    described = _described(path)
    if [(spec.shape, spec.dtype) for spec in described] == [(spec.shape, spec.dtype) for spec in specs]:
        return tuple(
            spec.model_copy(
                update={
                    "layout": known.layout,
                    "scale": spec.scale if spec.scale is not None else known.scale,
                    "zero_point": spec.zero_point if spec.scale is not None else known.zero_point,
                }
            )
            for spec, known in zip(specs, described, strict=True)
        )
    return tuple(spec.model_copy(update={"layout": guess_layout(spec.shape)}) for spec in specs)


def _described(path: Path) -> tuple[TensorSpec, ...]:
    description = path.with_name(path.name + ".json")
    if not description.is_file():
        return ()
    try:
        return Artifact.load(description).inputs
    except FileFormatError:
        # other tools too write MODEL.json files; such a file says nothing to us
        return ()


def fixed_shape(path: Path, name: str, shape: Sequence[int | str | None]) -> tuple[int, ...]:
    """Shape of an input with a free batch size set to 1. Anything that is no positive int counts as free.

    Raises:
        DeviceError: another dimension than the first is free.
    """
    known = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if None in known[1:]:
        raise DeviceError(
            f"{path}: input {name!r} has the shape {list(shape)}; only the batch size may be free; "
            "export the model with a fixed input size"
        )
    return tuple(1 if size is None else size for size in known)
