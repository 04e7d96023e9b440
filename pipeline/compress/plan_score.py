"""What a candidate loses, before any training: its outputs beside those of the parent, on calibration pictures."""

import copy
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from phonefit.models.checkpoint import Checkpoint
from phonefit.models.layers import in_layers
from phonefit.models.quantisation import BLOCK, CalibrationSet, Quantisation, Scheme
from phonefit.models.record import Frozen, Record
from phonefit.pipeline.compress.cost import layer_costs
from phonefit.pipeline.compress.fake_quantise import fake_quantised, on_grid
from phonefit.pipeline.compress.layer_graph import trace
from phonefit.pipeline.compress.plan import CODE_VERSIONS
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import ModelError

STAGE = "plan_score"
PICTURES = 128
BATCH = 32
FILE = "score.json"

# Bytes of a weight, and of what each output channel has besides: bias, scales.
_STORED: Mapping[Scheme | None, tuple[float, float]] = {
    None: (4, 4),
    "fp16": (2, 2),
    "int8_static": (1, 16),
    "int8_dynamic": (1, 8),
    "int8_weights": (1, 8),
    "int4_weights": (1, 8),
}
_LINEAR_STORED: Mapping[Scheme | None, float] = {"int4_weights": 0.5}
_LEVELS: Mapping[str, int] = {"int8": 127, "int4": 7}


class Rounded(Frozen):
    """What a quantisation adds: loss and share of changed decisions beside the float network; bytes as stored."""

    loss: float
    changed: float
    bytes: int


class Score(Record):
    """Content of score.json: a changed network beside its parent, and quantised beside itself.

    Attributes:
        loss: mean distillation loss to the parent's outputs.
        changed: share of pictures that are decided otherwise.
        bytes: of the weights in float32, BatchNorm folded.
        layers: number of convolutions and linear layers.
        left_out: precision -> why it could not be simulated.
    """

    schema_number: int = 1
    loss: float
    changed: float
    multiply_adds: int
    bytes: int
    layers: int
    rounded: Mapping[str, Rounded]
    left_out: Mapping[str, str] = {}


def score(
    checkpoint: Checkpoint, parent: Checkpoint, quantisations: Mapping[str, Quantisation], context: Context
) -> Score:
    """The score of one network, from the store where it is there.

    Args:
        quantisations: name -> what to simulate.

    Raises:
        ModelError: the network cannot be run.
    """

    def build(folder: Path) -> None:
        with deterministic(context, "plan"):
            _scored(checkpoint, parent, quantisations, context).save(folder / FILE)

    result = context.store.compute(
        STAGE,
        inputs={"checkpoint": checkpoint.digest, "parent": parent.digest, "data": context.data.digest},
        config={
            "quantisations": {name: one.as_json() for name, one in quantisations.items()},
            "seed": context.seed,
            "threads": context.threads,
        },
        code_version=CODE_VERSIONS[STAGE],
        build=build,
        tools={"torch": version("torch")},
    )
    return Score.load(result.path / FILE)


def distance(network: nn.Module, parent: nn.Module, context: Context) -> float:
    """Mean distillation loss of `network` to the outputs of `parent`."""
    with deterministic(context, "plan"):
        pictures = _pictures(context)
        loss = context.task.distillation_loss(_outputs(network, pictures), _outputs(parent, pictures), 1.0)
    return max(0.0, float(loss))


def _pictures(context: Context) -> Tensor:
    # other pictures than those that set the ranges, as far as there are
    return torch.from_numpy(context.data.calibration(CalibrationSet(samples=PICTURES, seed=context.seed + 1)))


def _scored(
    checkpoint: Checkpoint, parent: Checkpoint, quantisations: Mapping[str, Quantisation], context: Context
) -> Score:
    network, architecture = checkpoint.load(), checkpoint.info.architecture
    pictures = _pictures(context)
    exact, whole = _outputs(network, pictures), _outputs(parent.load(), pictures)
    rounded: dict[str, Rounded] = {}
    left_out: dict[str, str] = {}
    for name, asked in quantisations.items():
        try:
            outputs = _outputs(_simulated(checkpoint, asked, context), pictures)
        except ModelError as error:
            left_out[name] = str(error)
            continue
        rounded[name] = Rounded(**_apart(outputs, exact, context), bytes=stored_bytes(network, asked))
    costs = layer_costs(network, architecture)
    return Score(
        **_apart(exact, whole, context),
        multiply_adds=sum(cost.multiply_adds for cost in costs.values()),
        bytes=stored_bytes(network, None),
        layers=len(costs),
        rounded=rounded,
        left_out=left_out,
    )


def _apart(outputs: Tensor, exact: Tensor, context: Context) -> "dict[str, float]":
    loss = max(0.0, float(context.task.distillation_loss(outputs, exact, 1.0)))
    changed = ~context.task.agree(outputs.numpy(), exact.numpy())
    return {"loss": loss, "changed": float(changed.mean())}


def _outputs(network: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)])


def _simulated(checkpoint: Checkpoint, asked: Quantisation, context: Context) -> nn.Module:
    """A network that computes in float what the quantised file computes."""
    network = checkpoint.load()
    if asked.scheme == "int8_static":
        samples = context.data.calibration(asked.calibration)
        return fake_quantised(trace(network, checkpoint.info.architecture), asked, samples).module
    rounded = copy.deepcopy(network)
    for name, layer in rounded.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not in_layers(name, asked.float_layers):
            with torch.no_grad():
                layer.weight.copy_(_stored(layer, asked))
            if asked.scheme in ("int8_dynamic", "int4_weights") and not _is_depthwise(layer):
                layer.register_forward_pre_hook(lambda _, inputs: (_on_own_grid(inputs[0]), *inputs[1:]))
    return rounded.eval()


def _on_own_grid(values: Tensor) -> Tensor:
    return on_grid(values, *values.aminmax())


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels


def _stored(layer: nn.Conv2d | nn.Linear, asked: Quantisation) -> Tensor:
    """The weight as it is after storing it: symmetric, one scale an output channel, a tensor, or a block of inputs."""
    weight = layer.weight
    if asked.scheme == "fp16":
        return weight.half().float()
    in_blocks = asked.granularity == "per_block" and isinstance(layer, nn.Linear) and layer.in_features % BLOCK == 0
    small = asked.scheme == "int4_weights" and isinstance(layer, nn.Linear)
    if asked.granularity == "per_block" and not in_blocks:  # such a layer is int8
        small = False
    levels = _LEVELS["int4" if small else "int8"]
    shapes = {"per_tensor": (1, -1), "per_block": (-1, BLOCK)}
    rows = weight.flatten(1)
    if asked.granularity == "per_tensor" or in_blocks:
        rows = rows.reshape(shapes[asked.granularity])
    scale = (rows.abs().amax(1, keepdim=True) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    return ((rows / scale).round().clamp(-levels, levels) * scale).reshape(weight.shape)


def stored_bytes(network: nn.Module, asked: Quantisation | None) -> int:
    """Bytes of weights, biases and scales as a file stores them, BatchNorm folded into the layer before it."""
    total = 0.0
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            scheme = None if asked is None or in_layers(name, asked.float_layers) else asked.scheme
            weight, channel = _STORED[scheme]
            if isinstance(layer, nn.Linear):
                weight = _LINEAR_STORED.get(scheme, weight)
            total += weight * layer.weight.numel() + channel * layer.weight.shape[0]
        elif not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            total += 4 * sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    return int(total)
