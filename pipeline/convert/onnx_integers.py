"""ONNX graphs that compute in int8, by ONNX Runtime's quantiser.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Weights are symmetric int8. Activations
are uint8: with int8 ones, ONNX Runtime on x86 leaves many convolutions in float between casts; with uint8 it has
integer kernels on x86 and on Arm.
"""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch

from phonefit.device_bench.runtimes.onnx import without_telemetry
from phonefit.models.quantisation import CalibrationSet, Quantisation
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.convert.observers import ActivationRange

if TYPE_CHECKING:
    from onnx import ModelProto

_LAYERS = ("Conv", "Gemm", "MatMul")


def with_static_integers(
    model: "ModelProto", quantisation: Quantisation, samples: Floats, input_name: str, excluded: Collection[str]
) -> "ModelProto":
    """QuantizeLinear and DequantizeLinear pairs (QDQ) around every operator that ONNX Runtime has in int8.

    Args:
        samples: float32 [n, 3, height, width], to take the ranges from.
        excluded: names of nodes that stay in float.
    """
    without_telemetry()
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with TemporaryDirectory(prefix="phonefit-") as folder:
        prepared, ranges, quantised = (Path(folder, name) for name in ("prepared.onnx", "ranges.json", "int8.onnx"))
        _prepare(model, prepared)
        _write_ranges(ranges, _ranges(prepared, quantisation.calibration, samples, input_name))
        quantize_static(
            str(prepared),
            str(quantised),
            None,  # the ranges are in the file
            quant_format=QuantFormat.QDQ,
            per_channel=quantisation.granularity == "per_channel",
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,  # what the file's ranges are: lowest and highest
            calibration_cache_path=ranges,
            nodes_to_exclude=[*excluded],
            extra_options={"WeightSymmetric": True},
        )
        return onnx.load(str(quantised))


def with_dynamic_integers(model: "ModelProto", quantisation: Quantisation, excluded: Collection[str]) -> "ModelProto":
    """Layers as ConvInteger and MatMulInteger, each after a DynamicQuantizeLinear that takes the range of its input.

    Args:
        excluded: names of nodes that stay in float.
    """
    without_telemetry()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory(prefix="phonefit-") as folder:
        source, quantised = (Path(folder, name) for name in ("float.onnx", "dynamic.onnx"))
        onnx.save(model, str(source))
        quantize_dynamic(
            str(source),
            str(quantised),
            op_types_to_quantize=[*_LAYERS],
            per_channel=quantisation.granularity == "per_channel",
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*excluded],
        )
        return onnx.load(str(quantised))


def _prepare(model: "ModelProto", path: Path) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    exported = path.with_name("exported.onnx")
    onnx.save(model, str(exported))
    # symbolic shapes are for dynamic ones; ours are static
    quant_pre_process(str(exported), str(path), skip_symbolic_shape=True)


def _ranges(
    path: Path, calibration: CalibrationSet, samples: Floats, input_name: str
) -> dict[str, tuple[float, float]]:
    """Tensor name -> lowest and highest value.

    The model is run with every intermediate tensor as an output, one sample at a time: ONNX Runtime's own histograms
    would hold all activations of all samples.
    """
    import onnxruntime
    from onnxruntime.quantization.calibrate import HistogramCalibrater

    augmented = path.with_name("augmented.onnx")
    calibrater = HistogramCalibrater(str(path), augmented_model_path=str(augmented))
    calibrater.augment_graph()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # fusing would lose tensors
    session = onnxruntime.InferenceSession(str(augmented), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    observed = {name: ActivationRange(calibration) for name in sorted(calibrater.tensors_to_calibrate)}
    for sample in np.split(samples, len(samples)):
        values = dict(zip(names, session.run(names, {input_name: sample}), strict=True)) | {input_name: sample}
        for name, activation in observed.items():
            activation.observe(torch.from_numpy(values[name]))
    return {name: activation.limits() for name, activation in observed.items()}


def _write_ranges(path: Path, ranges: dict[str, tuple[float, float]]) -> None:
    """Write the ranges in ONNX Runtime's own file of calibration results."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData, save_tensors_data

    pairs = {name: tuple(np.array(limit, dtype=np.float32) for limit in limits) for name, limits in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, pairs), path, smooth_quant=False)
