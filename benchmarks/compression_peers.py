"""Other tools on the same network, pictures and seed: the peers' table of benchmarks/compression.py.

ai-edge-quantizer, ONNX Runtime's quantiser and Torch-Pruning are installed with phonefit. NNCF is not; this table has
it where it can be imported, for example after

    pip install --no-deps --target .cache/benchmarks/compression/peers-site nncf ninja openvino-telemetry pydot
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from compression_recipes import INT8, POINTS, QAT, Steps, prune, recipe_of
from compression_rows import CACHE, Row, correct_of, heading, keep, line
from pydantic import JsonValue

from phonefit.device_bench.bench import bench
from phonefit.device_bench.runtimes import runtime_module
from phonefit.device_bench.runtimes.run_samples import run_samples
from phonefit.models.artifact import Runtime
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.record import file_digest
from phonefit.models.tasks.task import Floats
from phonefit.pipeline.compress.cost import multiply_adds, parameters
from phonefit.pipeline.compress.finish import train_and_save
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.context import Context, SilentProgress
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.convert.tflite_file import packed, unpacked
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.finetune import finetune
from phonefit.pipeline.quiet import captured_output
from phonefit.pipeline.recipe import Recipe, resolved_steps
from phonefit.pipeline.recipe_steps import PruneConfig
from phonefit.pipeline.run import open_context
from phonefit.pipeline.store import StageResult

STAGE = "torch_pruning_alone"
CODE_VERSION = 1
SITE = CACHE / "peers-site"  # of what is installed for this table alone

Quantiser = Callable[[Path, Path, Floats], None]
"""Reads a float file, writes an int8 one, with the calibration pictures float32 [n, 3, height, width]."""


def ai_edge_quantizer(source: Path, target: Path, samples: Floats) -> None:
    """Its static int8 recipe with its own calibration. It needs names of inner tensors, which our files lack."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    model = unpacked(source.read_bytes())
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name or f"t{number}".encode()
    named = target.with_name("named.tflite")
    named.write_bytes(packed(model))
    (name,) = Interpreter(model_path=str(named)).get_signature_runner("serving_default").get_input_details()
    tool = quantizer.Quantizer(str(named), recipe.static_wi8_ai8())
    inputs = [{name: np.ascontiguousarray(one.transpose(1, 2, 0))[None]} for one in samples]
    calibration = tool.calibrate({"serving_default": inputs}, num_threads=1)
    target.write_bytes(bytes(tool.quantize(calibration).quantized_model))
    named.unlink()


def onnxruntime_static(source: Path, target: Path, samples: Floats, per_channel: bool = False) -> None:
    """quantize_static as it comes, after its own preparation: QDQ, one scale a tensor, lowest and highest value."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> dict[str, Floats] | None:
            sample = next(self.samples, None)
            return None if sample is None else {"input": sample[None]}

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(target), Reader(), per_channel=per_channel)
    prepared.unlink()


def onnxruntime_per_channel(source: Path, target: Path, samples: Floats) -> None:
    """The same with per_channel."""
    onnxruntime_static(source, target, samples, per_channel=True)


def nncf_ptq(source: Path, target: Path, samples: Floats) -> None:
    """nncf.quantize as it comes, on the .onnx file."""
    import nncf
    import onnx

    dataset = nncf.Dataset([{"input": one[None]} for one in samples])
    onnx.save(nncf.quantize(onnx.load(str(source)), dataset, subset_size=len(samples)), str(target))


QUANTISERS: dict[str, tuple[Runtime, str, Quantiser]] = {
    "ai-edge-quantizer static_wi8_ai8": ("tflite", "ai-edge-quantizer", ai_edge_quantizer),
    "onnxruntime quantize_static": ("onnx", "onnxruntime", onnxruntime_static),
    "onnxruntime quantize_static, per channel": ("onnx", "onnxruntime", onnxruntime_per_channel),
    "NNCF PTQ": ("onnx", "nncf", nncf_ptq),
}


def torch_pruning_alone(
    tuned: Checkpoint, config: PruneConfig, context: Context, share: float
) -> tuple[StageResult, Checkpoint]:
    """MetaPruner with its default importance to the same share of multiply-adds, then the recovery of `config`."""
    import torch
    import torch_pruning

    inputs = {"checkpoint": tuned.digest, "data": context.data.digest}
    settings: dict[str, JsonValue] = {"step": config.as_json(), "share": share, "seed": context.seed}
    tools = {"torch-pruning": version("torch-pruning")}
    resume = context.store.resume_file(context.store.key(STAGE, inputs, settings, CODE_VERSION, tools))

    def build(folder: Path) -> None:
        architecture = tuned.info.architecture
        example = torch.zeros(1, 3, architecture.height, architecture.width_pixels)
        with deterministic(context, "torch-pruning"):
            network = tuned.load()
            limit, steps = share * multiply_adds(network, architecture), 200
            head = [one for one in network.modules() if isinstance(one, torch.nn.Linear)][-1]
            pruner = torch_pruning.pruner.MetaPruner(
                network,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(),
                global_pruning=True,
                pruning_ratio=0.95,
                max_pruning_ratio=0.95,
                iterative_steps=steps,
                round_to=config.round_to,
                ignored_layers=[head],
            )
            for _ in range(steps):
                if multiply_adds(network, architecture) <= limit:
                    break
                pruner.step()
        train_and_save(network, tuned, config, config.recover, context, folder, tuned, (), resume)

    result = context.store.compute(STAGE, inputs, settings, CODE_VERSION, build, tools)
    return result, Checkpoint(result.path)


def row_of(label: str, kind: str, path: Path, runtime: Runtime, checkpoint: Checkpoint, context: Context) -> Row:
    """Quality, bytes and counted instructions of any file, kept in the store by the file's content."""

    def build(folder: Path) -> None:
        session, figures = runtime_module(runtime).load(path, context.threads), {}
        for side in ("validation", "test"):
            targets = context.data.targets(side)
            outputs = run_samples(session, context.data.inputs(side, 0, len(targets)))
            figures[side] = dict(context.task.metrics(outputs, targets))[context.task.quality]
        report = bench(path, device="emulator:counts", runtime=runtime)
        figures["instructions"] = report.figures["instructions"].samples[-1]
        (folder / "figures.json").write_text(json.dumps(figures))

    result = context.store.compute(
        "peer_figures",
        inputs={"file": file_digest(path), "data": context.data.digest},
        config={},
        code_version=CODE_VERSION,
        build=build,
        tools=runtime_module(runtime).versions(),
    )
    figures = json.loads((result.path / "figures.json").read_text())
    network = checkpoint.load()
    return Row(
        network="lite0",
        point=label,
        kind=kind,
        seed=context.seed,
        runtime=runtime,
        bytes=path.stat().st_size,
        instructions=round(figures["instructions"]),
        multiply_adds=multiply_adds(network, checkpoint.info.architecture),
        parameters=parameters(network),
        validation=figures["validation"],
        test=figures["test"],
        correct=correct_of(path, runtime, context),
    )


PRUNED = prune(0.42, 4)
FIRST: dict[str, tuple[Steps, tuple[Runtime, ...]]] = {
    "phonefit float": ([], ("tflite", "onnx")),
    "phonefit int8": ([INT8], ("tflite", "onnx")),
}
LATER: dict[str, tuple[Steps, tuple[Runtime, ...]]] = {
    "phonefit prune, int8": ([PRUNED, INT8], ("tflite",)),
    "phonefit prune, decompose, distil, int8": (
        POINTS["lite0"]["prune, decompose, distil, int8"].steps,
        ("tflite", "onnx"),
    ),
    "phonefit int8, qat": ([QAT], ("tflite", "onnx")),
}


def _compressed(recipe: Recipe, context: Context) -> tuple[Checkpoint, Checkpoint]:
    _, tuned = finetune(recipe, context)
    checkpoint = tuned
    for step in resolved_steps(recipe):
        _, checkpoint = compress_step(checkpoint, step, context, tuned)
    return tuned, checkpoint


def _ours(points: Mapping[str, tuple[Steps, tuple[Runtime, ...]]], context: Context) -> Iterator[tuple[Row, Path]]:
    for label, (steps, runtimes) in points.items():
        recipe = recipe_of("lite0", steps, context.seed, ("tflite",))
        _, checkpoint = _compressed(recipe, context)
        for runtime in runtimes:
            _, _, path, _ = convert_stage(checkpoint, runtime, context, recipe.convert)
            yield row_of(label, "ours" if steps else "original", path, runtime, checkpoint, context), path


def _quantisers(sources: Mapping[str, Path], tuned: Checkpoint, context: Context) -> Iterator[Row]:
    samples = context.data.calibration(CalibrationSet(samples=256))
    for label, (runtime, package, quantiser) in QUANTISERS.items():
        if find_spec(package.replace("-", "_")) is None:
            print(f"{label}: {package} is not installed", file=sys.stderr)
            continue
        source = sources[runtime]

        def build(folder: Path, source: Path = source, quantiser: Quantiser = quantiser) -> None:
            with captured_output(context.log):
                quantiser(source, folder / f"model{source.suffix}", samples)

        result = context.store.compute(
            "peer",
            inputs={"file": file_digest(source), "data": context.data.digest},
            config={"label": label},
            code_version=CODE_VERSION,
            build=build,
            tools={package: version(package)},
        )
        path = result.path / f"model{source.suffix}"
        yield row_of(f"{label} ({version(package)})", "peer", path, runtime, tuned, context)


def _torch_pruning(context: Context) -> Row:
    recipe = recipe_of("lite0", [PRUNED, INT8], context.seed, ("tflite",))
    _, tuned = finetune(recipe, context)
    step, quantise = resolved_steps(recipe)
    assert isinstance(step, PruneConfig)
    assert step.multiply_adds is not None
    _, pruned = torch_pruning_alone(tuned, step, context, step.multiply_adds)
    _, checkpoint = compress_step(pruned, quantise, context, tuned)
    _, _, path, _ = convert_stage(checkpoint, "tflite", context, recipe.convert)
    label = f"Torch-Pruning alone ({version('torch-pruning')}), our recovery and int8"
    return row_of(label, "peer", path, "tflite", checkpoint, context)


def _rows(context: Context) -> Iterator[Row]:
    """The cheap ones first."""
    sources: dict[str, Path] = {}
    for row, path in _ours(FIRST, context):
        if row.kind == "original":
            sources[row.runtime] = path
        yield row
    _, tuned = finetune(recipe_of("lite0", [], context.seed, ("tflite",)), context)
    yield from _quantisers(sources, tuned, context)
    yield from (row for row, _ in _ours(LATER, context))
    yield _torch_pruning(context)


def table_of_peers(seed: int = 0) -> None:
    """Print ours and the peers', then whether one of ours is on or above each peer's point."""
    if SITE.is_dir():
        sys.path.append(str(SITE))
    recipe = recipe_of("lite0", [], seed, ("tflite",))
    context = open_context(recipe, CACHE / "runs", SilentProgress())
    print(heading("peers, lite0"), flush=True)
    rows: list[Row] = []
    for row in _rows(context):
        rows.append(row)
        keep([row])
        print(line(row, next(one for one in rows if (one.kind, one.runtime) == ("original", row.runtime))), flush=True)
    print()
    for peer in (row for row in rows if row.kind == "peer"):
        for side in ("validation", "test"):
            better = [
                row.point
                for row in rows
                if row.kind == "ours"
                and row.runtime == peer.runtime
                and row.bytes <= peer.bytes
                and row.instructions <= peer.instructions
                and getattr(row, side) >= getattr(peer, side)
            ]
            found = f"on or below our front ({', '.join(better)})" if better else "ABOVE our front"
            print(f"- {peer.point}, {side}: {found}")
