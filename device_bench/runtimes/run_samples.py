"""Running a session over many samples, whatever its layout and number format."""

import numpy as np
from numpy.typing import NDArray

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.runtimes.runtime import Session, to_real, to_stored
from phonefit.models.spec import TensorSpec


def run_samples(session: Session, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run each sample through a model file, one by one.

    Args:
        inputs: float32 [N, 3, height, width], as the PyTorch model takes them.

    Returns:
        float32 [N, K]: the file's outputs in real values, each flattened, joined in their order.

    Raises:
        DeviceError: the file does not take one picture of this size.
        MeasurementError: the runtime gave up on one of them.
    """
    if len(session.inputs) != 1:
        raise DeviceError(f"the model takes {len(session.inputs)} inputs; a model of pictures takes one")
    source = session.inputs[0]
    arranged = arrange(inputs, source)
    rows = []
    for sample in np.split(arranged, len(arranged)):
        stored = session.run([to_stored(sample, source)])
        real = [to_real(output, spec).reshape(1, -1) for output, spec in zip(stored, session.outputs, strict=True)]
        rows.append(np.concatenate(real, axis=1))
    return np.concatenate(rows)


def arrange(inputs: NDArray[np.float32], spec: TensorSpec) -> NDArray[np.float32]:
    """Bring samples, float32 [N, channels, height, width], into the layout of a model's input.

    Raises:
        DeviceError: neither layout has the input's shape.
    """
    last = inputs.transpose(0, 2, 3, 1)
    channels_last = spec.layout == "NHWC" or (spec.layout == "other" and last.shape[1:] == spec.shape[1:])
    arranged = last if channels_last else inputs
    if arranged.shape[1:] != spec.shape[1:]:
        raise DeviceError(
            f"input {spec.name!r} has the shape {list(spec.shape)} ({spec.layout}), "
            f"the samples are {list(inputs.shape[1:])} (channels, height, width)"
        )
    return np.ascontiguousarray(arranged)
