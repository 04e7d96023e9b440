"""Compression steps through the store, and networks that are not easy to compress."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import parameters
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_steps import (
    DecomposeConfig,
    DistilConfig,
    PruneConfig,
    QuantiseConfig,
    RecoverConfig,
    TrainConfig,
)
from phonefit.pipeline.train import train, validation_outputs
from tests.tiny import LABELS, PREPROCESS, SIZE, build, tiny_checkpoint, tiny_context

UNTRAINED = RecoverConfig(epochs=0)
PRUNE = PruneConfig(ratio=0.5, recover=UNTRAINED)
DECOMPOSE = DecomposeConfig(energy=0.6, recover=UNTRAINED)


def checkpoint_of(folder, factory):
    """A checkpoint of the network that a function of this module builds."""
    torch.manual_seed(0)
    architecture = Architecture(
        factory=f"{__name__}:{factory.__name__}", outputs=len(LABELS), height=SIZE, width_pixels=SIZE
    )
    sys.modules[__name__].__dict__[factory.__name__] = factory
    info = CheckpointInfo(architecture=architecture, task="classification", labels=LABELS, preprocess=PREPROCESS)
    return Checkpoint.save(folder, factory(len(LABELS)).eval(), info)


def notes(checkpoint):
    return "\n".join(checkpoint.info.lineage[-1].config["notes"])


def pruned(tmp_path, factory):
    checkpoint = checkpoint_of(tmp_path / "checkpoint", factory)
    _, result = compress_step(checkpoint, PRUNE, tiny_context(tmp_path), checkpoint)
    return checkpoint.load(), result


def test_a_step_is_computed_once_for_the_same_checkpoint_config_seed_and_data(tmp_path):
    checkpoint, context = tiny_checkpoint(tmp_path / "c"), tiny_context(tmp_path)
    first, made = compress_step(checkpoint, PRUNE, context, checkpoint)
    again, found = compress_step(checkpoint, PRUNE, context, checkpoint)
    assert (first.reused, again.reused) == (False, True)
    assert found.digest == made.digest
    for other in (
        compress_step(checkpoint, PRUNE.model_copy(update={"ratio": 0.4}), context, checkpoint),
        compress_step(checkpoint, PRUNE, replace(context, seed=1), checkpoint),
        compress_step(tiny_checkpoint(tmp_path / "d", seed=1), PRUNE, context, checkpoint),
    ):
        assert not other[0].reused


REUSE = """
import sys
from pathlib import Path
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.recipe_steps import PruneConfig, RecoverConfig
from tests.tiny import tiny_context
checkpoint = Checkpoint(Path(sys.argv[1]) / "c")
step = PruneConfig(ratio=0.5, recover=RecoverConfig(epochs=0))
result, _ = compress_step(checkpoint, step, tiny_context(Path(sys.argv[1])), checkpoint)
print(result.reused, "torch" in sys.modules)
"""


def test_a_step_that_is_in_the_store_is_reused_without_torch(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    compress_step(checkpoint, PRUNE, tiny_context(tmp_path), checkpoint)
    done = subprocess.run([sys.executable, "-c", REUSE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


LOAD = """
import sys
from pathlib import Path
import torch
from phonefit.models.checkpoint import Checkpoint
network = Checkpoint(Path(sys.argv[1])).load()
print(network(torch.ones(1, 3, 32, 32)).tolist())
"""


@pytest.mark.parametrize("method", ["svd", "tucker", "cp", "tensor_train"])
def test_a_decomposed_student_loads_in_another_process(tmp_path, method):
    checkpoint, context = tiny_checkpoint(tmp_path / "c"), tiny_context(tmp_path)
    student = DistilConfig(epochs=1, batch_size=16, student={"family": "resnet18", "width": 0.125, "depth": 0.5})
    _, taught = compress_step(checkpoint, student, context, checkpoint)
    _, result = compress_step(taught, DECOMPOSE.model_copy(update={"method": method}), context, checkpoint)
    assert result.info.modules
    done = subprocess.run([sys.executable, "-c", LOAD, result.directory], capture_output=True, text=True, check=True)
    with torch.no_grad():
        expected = result.load()(torch.ones(1, 3, 32, 32)).numpy()
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, rtol=1e-4, atol=1e-5)


def test_asking_the_device_needs_one(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    with pytest.raises(RecipeError, match="decompose: on_device needs a device"):
        compress_step(checkpoint, DECOMPOSE.model_copy(update={"on_device": True}), tiny_context(tmp_path), checkpoint)


def test_four_steps_keep_their_order_and_the_quantisation(tmp_path):
    checkpoint, context = tiny_checkpoint(tmp_path / "c"), tiny_context(tmp_path)
    steps = (
        QuantiseConfig(granularity="per_tensor"),
        PruneConfig(ratio=0.3, recover=RecoverConfig(epochs=1, batch_size=16)),
        DECOMPOSE,
        DistilConfig(epochs=1, batch_size=16),
    )
    current = checkpoint
    for step in steps:
        _, current = compress_step(current, step, context, checkpoint)
    assert [line.stage for line in current.info.lineage] == ["quantise", "prune", "decompose", "distil"]
    assert current.info.quantisation.granularity == "per_tensor"
    assert parameters(current.load()) < 0.8 * parameters(checkpoint.load())


def test_recovery_brings_the_network_back_towards_its_teacher(tmp_path):
    context = tiny_context(tmp_path)
    torch.manual_seed(0)
    network = build(len(LABELS))
    train(network, context, TrainConfig(epochs=6, learning_rate=0.01, batch_size=16), title="t")
    teacher = Checkpoint.save(tmp_path / "teacher", network, tiny_checkpoint(tmp_path / "c").info)
    recover = RecoverConfig(epochs=4, learning_rate=0.01, batch_size=16)
    _, bare = compress_step(teacher, PRUNE, context, teacher)
    _, recovered = compress_step(teacher, PRUNE.model_copy(update={"recover": recover}), context, teacher)

    def distance(checkpoint):
        outputs = [validation_outputs(one.load(), context) for one in (checkpoint, teacher)]
        return np.abs(outputs[0] - outputs[1]).mean()

    assert distance(recovered) < 0.7 * distance(bare)
    assert recovered.info.metrics["accuracy"] > 0.9


def test_an_interrupted_recovery_goes_on_to_the_same_digest(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    config = PRUNE.model_copy(update={"recover": RecoverConfig(epochs=3, batch_size=16)})
    _, whole = compress_step(checkpoint, config, tiny_context(tmp_path / "a"), checkpoint)

    class Interrupted:
        @contextmanager
        def stage(self, title, total=None):
            def advance(steps=1, note=""):
                if note.startswith("epoch 2"):
                    raise KeyboardInterrupt

            yield advance

    context = tiny_context(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        compress_step(checkpoint, config, replace(context, progress=Interrupted()), checkpoint)
    assert len(list((tmp_path / "b/runs/store/resume").iterdir())) == 1
    _, resumed = compress_step(checkpoint, config, context, checkpoint)
    assert resumed.digest == whole.digest
    assert not list((tmp_path / "b/runs/store/resume").iterdir())


def test_a_second_quantisation_is_refused(tmp_path):
    checkpoint, context = tiny_checkpoint(tmp_path / "c", quantised=True), tiny_context(tmp_path)
    with pytest.raises(RecipeError, match="asks for int8_static already"):
        compress_step(checkpoint, QuantiseConfig(), context, checkpoint)


def test_quantise_leaves_the_weights_as_they_are(tmp_path):
    checkpoint, context = tiny_checkpoint(tmp_path / "c"), tiny_context(tmp_path)
    _, result = compress_step(checkpoint, QuantiseConfig(float_layers=("9",)), context, checkpoint)
    assert result.weights_path.read_bytes() == checkpoint.weights_path.read_bytes()
    assert result.info.quantisation.float_layers == ("9",)


@pytest.mark.parametrize(
    ("step", "option"),
    [
        (PRUNE.model_copy(update={"keep": ("9", "nowhere")}), "prune: keep"),
        (DECOMPOSE.model_copy(update={"keep": ("nowhere",)}), "decompose: keep"),
        (QuantiseConfig(float_layers=("nowhere",)), "quantise: float_layers"),
    ],
)
def test_a_layer_that_does_not_exist_is_named_with_those_that_do(tmp_path, step, option):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    with pytest.raises(RecipeError, match=rf"{option}: the model has no layer nowhere; it has 0, 3\.depthwise"):
        compress_step(checkpoint, step, tiny_context(tmp_path), checkpoint)


def test_a_kept_block_keeps_all_its_layers(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    config = PRUNE.model_copy(update={"keep": ("3",)})
    _, result = compress_step(checkpoint, config, tiny_context(tmp_path), checkpoint)
    assert not [path for path in result.info.modules if path.startswith("3.")]
    assert "4" in result.info.modules


def test_a_ratio_too_small_for_a_block_removes_nothing_and_says_so(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path / "c")
    _, result = compress_step(checkpoint, PRUNE.model_copy(update={"ratio": 0.05}), tiny_context(tmp_path), checkpoint)
    assert result.info.modules == {}
    assert "nothing could go" in notes(result)


class Block(nn.Module):
    """Branches that are concatenated, a convolution in groups, a LayerNorm, a parameter of its own."""

    def __init__(self, outputs):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(3, 24, 3, stride=2)
        self.norm = nn.BatchNorm2d(40)
        self.before_grouped = nn.Conv2d(40, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, groups=4)
        self.before_scale = nn.Conv2d(32, 32, 1)
        self.scale = nn.Parameter(torch.ones(1, 32, 1, 1))
        self.before_layer_norm = nn.Linear(32, 32)
        self.layer_norm = nn.LayerNorm(32)
        self.last = nn.Linear(32, outputs)

    def forward(self, pictures):
        x = torch.cat([self.left(pictures), self.right(pictures)], dim=1).relu()
        x = self.grouped(self.before_grouped(self.norm(x)).relu()).relu()
        x = (self.before_scale(x) * self.scale).mean((2, 3))
        return self.last(self.layer_norm(self.before_layer_norm(x)))


def test_groups_that_cannot_be_recorded_are_left_alone_and_named(tmp_path):
    original, result = pruned(tmp_path, Block)
    assert parameters(result.load()) < parameters(original)
    assert "norm" in result.info.modules
    text = notes(result)
    assert "layer_norm, a LayerNorm, which a checkpoint cannot record" in text
    assert "a parameter that is in no layer" in text
    assert {"layer_norm", "last"}.isdisjoint(set(result.info.modules) - {"last"})
    grouped = result.info.modules["grouped"].arguments
    assert grouped["groups"] == 4 and (grouped["in_channels"] < 32 or grouped["out_channels"] < 32)


class HalfUsed(nn.Module):
    """Reads a fixed number of channels: no graph can tell that they must stay."""

    def __init__(self, outputs):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, stride=2)
        self.second = nn.Conv2d(32, 32, 3, stride=2)
        self.last = nn.Linear(32, outputs)

    def forward(self, pictures):
        x = self.second(self.first(pictures).relu())
        return self.last(torch.reshape(x, (x.shape[0], 32, -1)).mean(2))


def test_a_network_that_breaks_without_some_channels_keeps_those(tmp_path):
    _, result = pruned(tmp_path, HalfUsed)
    assert result.info.modules["first"].arguments["out_channels"] == 16
    assert result.info.modules["second"].arguments["out_channels"] == 32
    assert "left alone: second: without its channels the network would not run" in notes(result)


def flattened(outputs):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 32),
        nn.ReLU(),
        nn.Linear(32, outputs),
    )


def test_a_flattened_map_and_hidden_linear_layers_are_pruned_together(tmp_path):
    _, result = pruned(tmp_path, flattened)
    first, hidden = result.info.modules["0"].arguments, result.info.modules["3"].arguments
    assert hidden["in_features"] == 64 * first["out_channels"]
    assert hidden["out_features"] < 32 or first["out_channels"] < 16


def test_a_layer_whose_weights_are_read_directly_is_not_decomposed(tmp_path):
    class Direct(nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.stem, self.direct = nn.Conv2d(3, 32, 3, stride=2), nn.Linear(32, 32)
            self.last = nn.Linear(32, outputs)

        def forward(self, pictures):
            return self.last(nn.functional.linear(self.stem(pictures).mean((2, 3)), self.direct.weight))

    checkpoint = checkpoint_of(tmp_path / "c", Direct)
    context = tiny_context(tmp_path)
    _, result = compress_step(checkpoint, DECOMPOSE.model_copy(update={"energy": 0.3}), context, checkpoint)
    assert "direct" not in result.info.modules
    assert validation_outputs(result.load(), context).shape == (48, len(LABELS))
