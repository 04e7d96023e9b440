""".tflite files whose activations are float: weights in int8, int4 or float16, by LiteRT's quantiser of files.

https://github.com/google-ai-edge/ai-edge-quantizer. Static quantisation is not left to it: the int8 file that it makes
of a MobileNetV2 has nothing in common with the model (cosine -0.006).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from phonefit.models.quantisation import BLOCK, Quantisation
from phonefit.pipeline.convert.tflite_file import LAYERS, constant, operator_names, packed, same_values, unpacked

if TYPE_CHECKING:
    from torch import Tensor

_KEPT = "in-float"  # prefix of the names by which the quantiser finds layers
_UNEVEN = "uneven"


def with_stored_weights(content: bytes, quantisation: Quantisation, in_float: "Mapping[str, Tensor]") -> bytes:
    """A float .tflite file with its weights stored as the quantisation asks.

    - int8_dynamic: LiteRT's XNNPACK takes the range of each input while running and computes in integers. Depthwise
      convolutions keep float arithmetic: the kernels that LiteRT has for them are slow, and wrong with one scale a
      tensor; their weights are int8 all the same and become float when the file is loaded.
    - int8_weights, fp16: all weights become float32 when the file is loaded.
    - int4_weights: as int8_dynamic, with linear layers in int4. With blocks, a linear layer whose inputs are no
      multiple of a block is int8.

    Args:
        in_float: layer name -> weights, of the layers to leave alone.
    """
    from ai_edge_quantizer.quantizer import Quantizer

    with TemporaryDirectory(prefix="phonefit-") as folder:
        path = Path(folder, "float.tflite")
        path.write_bytes(_with_findable_layers(content, in_float))
        quantizer = Quantizer(str(path))
        quantizer.load_quantization_recipe(_recipe(quantisation))
        return bytes(quantizer.quantize().quantized_model)


def _with_findable_layers(content: bytes, in_float: "Mapping[str, Tensor]") -> bytes:
    """Rename the outputs of layers so that one expression tells which are an exception."""
    model = unpacked(content)
    names = operator_names(model)
    (graph,) = model.subgraphs
    for place, operator in enumerate(graph.operators):
        if names[operator.opcodeIndex] not in LAYERS:
            continue
        weights = graph.tensors[operator.inputs[1]]
        values = constant(model, weights)
        kept = values is not None and any(same_values(values, weight) for weight in in_float.values())
        uneven = len(weights.shape) == 2 and weights.shape[1] % BLOCK
        output = graph.tensors[operator.outputs[0]]
        output.name = f"{_KEPT if kept else _UNEVEN if uneven else 'layer'}-{place}".encode()
    return packed(model)


def _recipe(quantisation: Quantisation) -> Any:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    manager = RecipeManager()
    convolution, depthwise, linear = (qtyping.TFLOperationName[name] for name in LAYERS)
    scale = {
        "per_channel": qtyping.QuantGranularity.CHANNELWISE,
        "per_tensor": qtyping.QuantGranularity.TENSORWISE,
        "per_block": qtyping.QuantGranularity[f"BLOCKWISE_{BLOCK}"],
    }[quantisation.granularity]
    whole = qtyping.QuantGranularity.CHANNELWISE if quantisation.granularity == "per_block" else scale
    half = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for operation in (convolution, depthwise, linear):
        if quantisation.scheme == "fp16":
            manager.add_quantization_config(".*", operation, half, AlgorithmName.FLOAT_CASTING)
        elif quantisation.scheme == "int8_weights" or operation == depthwise:
            manager.add_weight_only_config(".*", operation, num_bits=8, granularity=whole)
        elif quantisation.scheme == "int4_weights" and operation == linear:
            manager.add_dynamic_config(".*", operation, num_bits=4, granularity=scale)
            if scale != whole:
                manager.add_dynamic_config(rf"^{re.escape(_UNEVEN)}-", operation, num_bits=8, granularity=whole)
        else:
            manager.add_dynamic_config(".*", operation, num_bits=8, granularity=whole)
        manager.add_quantization_config(rf"^{re.escape(_KEPT)}-", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return manager.get_quantization_recipe()
