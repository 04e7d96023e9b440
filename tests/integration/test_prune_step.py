"""The prune step: criteria, targets, steps, and questions to a device."""

from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from phonefit.device_bench.device import DeviceInfo
from phonefit.device_bench.report import Figure, Report
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.cost import multiply_adds, parameters
from phonefit.pipeline.compress.prune_criteria import CRITERIA, criterion
from phonefit.pipeline.compress.prune_target import Asked, search_by_asking
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.errors import RecipeError, UnknownNameError
from phonefit.pipeline.recipe_steps import PruneConfig, RecoverConfig
from tests.tiny import tiny_checkpoint, tiny_context

UNTRAINED = RecoverConfig(epochs=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def pruned(checkpoint, context, **settings):
    config = PruneConfig(**{"recover": UNTRAINED, "round_to": 2, "criterion": "magnitude", **settings})
    return compress_step(checkpoint, config, context, checkpoint)[1]


def notes(checkpoint):
    return "\n".join(checkpoint.info.lineage[-1].config["notes"])


def work(checkpoint):
    return multiply_adds(checkpoint.load(), checkpoint.info.architecture)


@pytest.mark.parametrize("name", CRITERIA)
def test_channels_that_do_nothing_are_the_first_to_go(tmp_path, checkpoint, name):
    network = checkpoint.load()
    dead = [1, 2, 5, 7, 20, 21, 29, 31]
    with torch.no_grad():
        for tensor in (network[4].weight, network[5].weight, network[5].bias):
            tensor[dead] = 0
        network[9].weight[:, dead] = 0
    source = Checkpoint.save(tmp_path / "dead", network, checkpoint.info)
    result = pruned(source, tiny_context(tmp_path), ratio=0.2, round_to=8, criterion=name)
    kept = result.load()[4].weight
    alive = [channel for channel in range(32) if channel not in dead]
    torch.testing.assert_close(kept, network[4].weight[alive][:, : kept.shape[1]])


def test_every_criterion_of_the_recipe_is_in_the_registry():
    assert set(get_args(PruneConfig.model_fields["criterion"].annotation)) == set(CRITERIA)
    with pytest.raises(UnknownNameError, match="did you mean 'taylor'"):
        criterion("tailor")


def test_the_number_of_multiply_adds_is_met_with_the_fewest_blocks(tmp_path, checkpoint):
    whole, context = work(checkpoint), tiny_context(tmp_path)
    share = pruned(checkpoint, context, multiply_adds=0.6)
    assert 0.5 * whole < work(share) <= 0.6 * whole
    number = pruned(checkpoint, context, multiply_adds=int(0.6 * whole))
    assert number.weights_path.read_bytes() == share.weights_path.read_bytes()
    looser = pruned(checkpoint, context, multiply_adds=work(share) + 1)
    assert work(looser) == work(share)  # one multiply-add less than that needs the next block
    assert work(pruned(checkpoint, context, multiply_adds=work(share) - 1)) < work(share)


def test_the_bytes_of_the_weights_are_met(tmp_path, checkpoint):
    result = pruned(checkpoint, tiny_context(tmp_path), bytes="10kB")
    assert 9000 < 4 * parameters(result.load()) <= 10_000 < 4 * parameters(checkpoint.load())


def test_a_target_that_is_met_already_changes_nothing_and_says_so(tmp_path, checkpoint):
    result = pruned(checkpoint, tiny_context(tmp_path), bytes="1GB", recover=RecoverConfig(epochs=1))
    assert result.weights_path.read_bytes() == checkpoint.weights_path.read_bytes()
    assert result.info.metrics == checkpoint.info.metrics
    assert "the target is met already" in notes(result)


def test_a_target_that_cannot_be_met_names_the_smallest_that_can(tmp_path, checkpoint):
    context = tiny_context(tmp_path)
    with pytest.raises(
        RecipeError, match=r"target of .* multiply-adds cannot be met.* ([\d,]+) multiply-adds remain"
    ) as caught:
        pruned(checkpoint, context, multiply_adds=1000, layer_limit=0.5)
    smallest = int(str(caught.value).split(" multiply-adds remain")[0].split()[-1].replace(",", ""))
    assert work(pruned(checkpoint, context, multiply_adds=smallest, layer_limit=0.5)) == smallest


@pytest.mark.parametrize(("growth", "first"), [("geometric", 0.7071), ("linear", 0.75)])
def test_steps_end_where_one_step_would(tmp_path, checkpoint, growth, first):
    context, whole = tiny_context(tmp_path), work(checkpoint)
    result = pruned(checkpoint, context, multiply_adds=0.5, steps=2, growth=growth)
    assert 0.42 * whole < work(result) <= 0.5 * whole
    part = Checkpoint(next((tmp_path / "runs/store/prune_part").iterdir()))
    assert (first - 0.08) * whole < work(part) <= first * whole
    assert [line.stage for line in result.info.lineage] == ["prune"]
    assert "step 1 of 2: removed" in notes(result) and "step 2 of 2: removed" in notes(result)


def test_a_ratio_in_steps_removes_that_share_in_all(tmp_path, checkpoint):
    once = pruned(checkpoint, tiny_context(tmp_path / "a"), ratio=0.5, steps=1)
    thrice = pruned(checkpoint, tiny_context(tmp_path / "b"), ratio=0.5, steps=3)

    def channels(result):
        return sum(result.load().get_submodule(name).out_channels for name in ("0", "3.depthwise", "4"))

    assert abs(channels(once) - channels(thrice)) <= 4


@pytest.mark.parametrize("title", ["prune 1 of 2", "prune 2 of 2"])
def test_a_run_that_is_killed_in_any_step_goes_on_to_the_same_digest(tmp_path, checkpoint, title):
    config = PruneConfig(ratio=0.5, round_to=2, steps=2, recover=RecoverConfig(epochs=4, batch_size=16))
    _, whole = compress_step(checkpoint, config, tiny_context(tmp_path / "a"), checkpoint)

    class Killed:
        @contextmanager
        def stage(self, name, total=None):
            def advance(steps=1, note=""):
                if name == title and note.startswith("epoch 2"):
                    raise KeyboardInterrupt

            yield advance

    context = tiny_context(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        compress_step(checkpoint, config, replace(context, progress=Killed()), checkpoint)
    _, resumed = compress_step(checkpoint, config, context, checkpoint)
    assert resumed.digest == whole.digest
    assert not list((tmp_path / "b/runs/store/resume").iterdir())


class DeviceStandIn:
    """Answers as a device would whose time grows with multiply-adds, above a fixed part."""

    identity = {"device": "stand-in"}  # noqa: RUF012

    def __init__(self, fixed=0.0, unit=1e-5):
        self.fixed, self.unit, self.asked = fixed, unit, []

    def __call__(self, candidate):
        milliseconds = self.fixed + self.unit * work(candidate)
        self.asked.append(milliseconds)
        info = DeviceInfo(
            kind="host", name="stand-in", architecture="none", cores=1, ram_bytes=1, operating_system="none"
        )
        return Report(
            model_sha256="0" * 64,
            model_bytes=1,
            model_name="candidate",
            runtime="onnx",
            device=info,
            settings={},
            figures={
                "latency": Figure(unit="ns", source="measured", samples=(milliseconds * 1e6,)),
                "instructions": Figure(unit="instructions", source="counted", samples=(milliseconds * 1e6,)),
            },
        )


@pytest.mark.parametrize("fixed", [0.0, 5.0])
@pytest.mark.parametrize("goal", ["latency_ms", "instructions"])
def test_a_figure_of_the_device_is_met_with_few_questions(tmp_path, checkpoint, goal, fixed):
    device = DeviceStandIn(fixed)
    target = fixed + 0.6 * 1e-5 * work(checkpoint)
    value = {"latency_ms": target, "instructions": int(target * 1e6)}[goal]
    context = replace(tiny_context(tmp_path), ask=device)
    result = pruned(checkpoint, context, **{goal: value})
    assert work(result) == work(pruned(checkpoint, context, multiply_adds=int(0.6 * work(checkpoint))))
    assert 2 <= len(device.asked) <= 6
    assert notes(result).count("asked stand-in, onnx:") == len(device.asked) - 1
    assert "before pruning:" in notes(result)


def test_another_device_is_another_result(tmp_path, checkpoint):
    context, config = tiny_context(tmp_path), PruneConfig(latency_ms=1e6, recover=UNTRAINED)
    one, other = DeviceStandIn(), DeviceStandIn()
    other.identity = {"device": "other"}
    first, _ = compress_step(checkpoint, config, replace(context, ask=one), checkpoint)
    again, _ = compress_step(checkpoint, config, replace(context, ask=one), checkpoint)
    second, _ = compress_step(checkpoint, config, replace(context, ask=other), checkpoint)
    assert (again.reused, second.reused) == (True, False)
    assert first.key != second.key


def test_a_device_that_cannot_get_so_fast_says_how_fast_it_gets(tmp_path, checkpoint):
    device = DeviceStandIn(fixed=5.0)
    context = replace(tiny_context(tmp_path), ask=device)
    with pytest.raises(RecipeError, match=r"target of 5 ms cannot be met: without all that may go, 5\.\d+ ms remain"):
        pruned(checkpoint, context, latency_ms=5.0)
    assert len(device.asked) <= 6


def test_a_target_of_the_device_needs_one(tmp_path, checkpoint):
    with pytest.raises(RecipeError, match="need a device to measure on"):
        pruned(checkpoint, tiny_context(tmp_path), latency_ms=1.0)


@pytest.mark.parametrize(
    "curve", [lambda x: x, lambda x: x**2, lambda x: 0.5 + 0.5 * x**3, lambda x: (x * 10 // 1) / 10]
)
@pytest.mark.parametrize("target", [0.55, 0.7, 0.9])
def test_few_questions_find_a_candidate_that_meets_the_target(curve, target):
    def cost(count):
        return 1000 - 2 * count

    asked = search_by_asking(lambda count: curve(cost(count) / 1000), cost, 400, target, Asked(-1, 1000, curve(1.0)), 5)
    met = [answer for answer in asked if answer.figure <= target]
    assert len(asked) <= 5
    assert max(answer.figure for answer in met) > target - 0.12


@pytest.mark.parametrize(
    ("aims", "said"),
    [
        ({}, "none is given"),
        ({"ratio": 0.5, "bytes": 1000}, "ratio and bytes exclude each other"),
        ({"latency_ms": 1, "instructions": 10}, "latency_ms and instructions exclude each other"),
    ],
)
def test_exactly_one_aim_is_given(aims, said):
    with pytest.raises(ValidationError, match=said):
        PruneConfig(**aims)
