"""Do the runtimes gain from zeros in the weights? The table of docs/pruning.md.

    python benchmarks/sparsity.py [--family mobilenet_v2] [--size 96]

The 1x1 convolutions of a network get 80 % zeros, or two zeros in each four weights. Each file is measured on this
machine (native runner) and counted on the emulated core. "tflite, encoded" holds the weights in LiteRT's sparse format
(CSR and DENSIFY), which XNNPACK's sparse kernels ask for.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from phonefit.device_bench.bench import bench
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.registry import build_network, model_spec
from phonefit.models.spec import Architecture
from phonefit.models.tasks import task
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert import CONVERTERS, converter
from phonefit.pipeline.convert.tflite_file import packed, unpacked
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.store import Store


def unstructured(weight):
    """Zeros for the 80 % of smallest size."""
    return weight * (weight.abs() > weight.abs().flatten().quantile(0.8))


def two_of_four(weight):
    """Zeros for the two smallest of each four weights along the inputs."""
    parts = weight.flatten(1).reshape(weight.shape[0], -1, 4)
    largest = parts.abs().argsort(-1, descending=True)[..., :2]
    return (parts * torch.zeros_like(parts).scatter(-1, largest, 1.0)).reshape(weight.shape)


PATTERNS = {"dense": lambda weight: weight, "80 % zeros": unstructured, "2:4 zeros": two_of_four}


def encoded(content):
    """A .tflite file with the weights of its 1x1 convolutions in the sparse format, expanded by DENSIFY."""
    model = unpacked(content)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes.append(code)
    densify = []
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.CONV_2D:
            continue
        tensor = graph.tensors[operator.inputs[1]]
        weights = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)
        if weights.shape[1:3] != (1, 1) or weights.all():
            continue
        dense = schema.TensorT()
        dense.name, dense.shape, dense.type, dense.buffer = b"", tensor.shape, tensor.type, 0
        graph.tensors.append(dense)
        expand = schema.OperatorT()
        expand.opcodeIndex = len(model.operatorCodes) - 1
        expand.inputs, expand.outputs = [operator.inputs[1]], [len(graph.tensors) - 1]
        expand.builtinOptionsType, expand.builtinOptions = (
            schema.BuiltinOptions.DensifyOptions,
            schema.DensifyOptionsT(),
        )
        operator.inputs = [operator.inputs[0], len(graph.tensors) - 1, *operator.inputs[2:]]
        densify.append(expand)
        tensor.sparsity = _sparsity(weights)
        model.buffers[tensor.buffer].data = np.frombuffer(weights[weights != 0].tobytes(), np.uint8)
    graph.operators = [*densify, *graph.operators]
    return packed(model)


def _sparsity(weights):
    """Rows of outputs, of which each lists its inputs."""
    rows = weights.reshape(weights.shape[0], -1)
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1, 2, 3], []
    for size in weights.shape[:3]:
        dimension = schema.DimensionMetadataT()
        dimension.format, dimension.denseSize = schema.DimensionType.DENSE, size
        sparsity.dimMetadata.append(dimension)
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    last.arraySegmentsType = last.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    last.arraySegments, last.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    last.arraySegments.values = np.concatenate([[0], (rows != 0).sum(1).cumsum()]).astype(np.int32)
    last.arrayIndices.values = np.nonzero(rows)[1].astype(np.int32)
    sparsity.dimMetadata.append(last)
    return sparsity


def files(family, size, folder, runtimes):
    """(pattern, runtime, file) of each combination."""
    spec = model_spec(family)
    architecture = Architecture(family=family, outputs=10, height=size, width_pixels=size)
    for pattern, make in PATTERNS.items():
        torch.manual_seed(0)
        network = build_network(architecture).eval()
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.kernel_size == (1, 1):
                    layer.weight.copy_(make(layer.weight))
        place = folder / pattern.replace(" ", "").replace("%", "").replace(":", "")
        info = CheckpointInfo(
            architecture=architecture,
            task="classification",
            labels=tuple(map(str, range(10))),
            preprocess=spec.preprocess.model_copy(update={"height": size, "width": size}),
        )
        checkpoint = Checkpoint.save(place / "checkpoint", network, info)
        # float files need no pictures
        context = Context(Store(folder), None, task("classification"), 0, folder / "log")  # type: ignore[arg-type]
        for runtime in runtimes:
            with captured_output(context.log, runtime):
                artifact = converter(runtime)(checkpoint, context, place, "model")
            yield pattern, runtime, place / artifact.file
        if pattern != "dense" and "tflite" in runtimes:
            path = place / "encoded.tflite"
            path.write_bytes(encoded((place / "model.tflite").read_bytes()))
            yield pattern, "tflite, encoded", path


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--only", default="", help="part of a file's kind, such as encoded")
    arguments = parser.parse_args()
    print("| file | weights | bytes | instructions, emulated Cortex-A76 | median ms, this machine |")
    print("|---|---|---|---|---|")
    runtimes = [name for name in CONVERTERS if name in arguments.only] or list(CONVERTERS)
    with tempfile.TemporaryDirectory() as folder:
        for pattern, runtime, path in files(arguments.family, arguments.size, Path(folder), runtimes):
            if arguments.only not in runtime:
                continue
            counted = bench(path, device="emulator:counts").figures["instructions"].samples[-1]
            timed = bench(path, device="host", repeats=100).median_milliseconds()
            print(f"| {runtime} | {pattern} | {path.stat().st_size:,} | {counted:,.0f} | {timed:.2f} |", flush=True)


if __name__ == "__main__":
    main()
