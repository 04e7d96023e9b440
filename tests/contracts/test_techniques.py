"""What every compression technique keeps to, on every family.

A new technique is tested with its defaults by being listed in TECHNIQUES; a new family is one line in ARCHITECTURES.
"""

from dataclasses import replace
from functools import cache
from typing import get_args

import pytest
import torch

from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.registry import MODELS, build_network
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress import TECHNIQUES, load_technique, stage
from phonefit.pipeline.compress.cost import multiply_adds, parameters
from phonefit.pipeline.errors import RecipeError, UnknownNameError
from phonefit.pipeline.recipe_steps import RecoverConfig, StepConfig
from phonefit.pipeline.train import validation_metrics
from tests.tiny import ARCHITECTURE, LABELS, PREPROCESS, SIZE, TinyPictures, tiny_context

UNTRAINED = RecoverConfig(epochs=0)
RECOVERED = RecoverConfig(epochs=1, batch_size=16)
CONFIGS = {config.model_fields["technique"].default: config for config in get_args(get_args(StepConfig)[0])}
SHRINKING = tuple(name for name, config in CONFIGS.items() if "recover" in config.model_fields)
# Settings that show an effect on networks this small; a technique that is not here is tested with its defaults.
SETTINGS = {"prune": {"ratio": 0.4}, "decompose": {"energy": 0.6}, "distil": {"epochs": 1, "batch_size": 16}}
STEPS = {
    name: CONFIGS[name](**SETTINGS.get(name, {}), **({"recover": UNTRAINED} if name in SHRINKING else {}))
    for name in TECHNIQUES
}


def family(name, **sizes):
    return Architecture(family=name, outputs=len(LABELS), height=SIZE, width_pixels=SIZE, **sizes)


ARCHITECTURES = {
    "own factory": ARCHITECTURE,
    "efficientnet_lite0": family("efficientnet_lite0", width=0.5, depth=0.1),
    "face_age": family("face_age", width=0.125, depth=0.5),
    "face_resnet": family("face_resnet", width=0.25, depth=0.1),
    "mobilenet_v2": family("mobilenet_v2", width=0.5, depth=0.1),
    "resnet18": family("resnet18", width=0.125),
    "resnet50": family("resnet50", width=0.125, depth=0.1),
    "vgg11": family("vgg11", width=0.125),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(request, tmp_path_factory):
    torch.manual_seed(0)
    architecture = ARCHITECTURES[request.param]
    network = build_network(architecture)
    with torch.no_grad():  # plausible statistics
        for _ in range(5):
            network.train()(torch.from_numpy(TinyPictures().inputs("train", 0, 48)))
    info = CheckpointInfo(
        architecture=architecture,
        task="classification",
        labels=LABELS,
        preprocess=PREPROCESS,
        metrics={"accuracy": 0.1},
    )
    return Checkpoint.save(tmp_path_factory.mktemp("checkpoint"), network.eval(), info)


def run_step(name, source, config, folder, parent):
    context = replace(tiny_context(folder), data=TinyPictures(per_side=24))
    return load_technique(name)(source, config, context, folder / "result", parent)


@pytest.fixture
def apply(checkpoint, tmp_path):
    """Applies a step to a checkpoint."""

    def function(name, source=checkpoint, config=None, folder="step"):
        return run_step(name, source, config or STEPS[name], tmp_path / folder, checkpoint)

    return function


@pytest.fixture(scope="module")
def after(checkpoint, tmp_path_factory):
    """The checkpoint after a step of STEPS, computed once."""

    @cache
    def function(name):
        return run_step(name, checkpoint, STEPS[name], tmp_path_factory.mktemp(name), checkpoint)

    return function


def outputs(network):
    with torch.no_grad():
        return network(torch.from_numpy(TinyPictures().inputs("test", 0, 8)))


@pytest.mark.parametrize("name", STEPS)
def test_a_technique_writes_a_checkpoint_that_stands_for_itself(checkpoint, apply, tmp_path, name, monkeypatch):
    saved = []
    original_save = Checkpoint.save.__func__
    monkeypatch.setattr(Checkpoint, "save", classmethod(lambda *args: (saved.append(args[2]), original_save(*args))[1]))
    before = Checkpoint(checkpoint.directory).digest, checkpoint.weights_path.read_bytes()
    result = apply(name)
    assert (Checkpoint(checkpoint.directory).digest, checkpoint.weights_path.read_bytes()) == before

    again = Checkpoint(result.directory).load()
    torch.testing.assert_close(outputs(again), outputs(saved[0].eval()))
    assert result.info.lineage[-1].parent == checkpoint.digest
    assert result.info.lineage[-1].stage == name
    assert result.digest != checkpoint.digest


@pytest.mark.parametrize("name", STEPS)
def test_twice_the_same_step_gives_the_same_digest(apply, name):
    config = STEPS[name].model_copy(update={"recover": RECOVERED}) if name in SHRINKING else STEPS[name]
    assert apply(name, config=config, folder="one").digest == apply(name, config=config, folder="two").digest


@pytest.mark.parametrize("name", SHRINKING)
def test_the_network_gets_smaller_and_its_metrics_are_those_of_the_new_network(checkpoint, after, tmp_path, name):
    result = after(name)
    small, large = result.load(), checkpoint.load()
    assert parameters(small) < 0.95 * parameters(large)
    assert multiply_adds(small, result.info.architecture) < multiply_adds(large, result.info.architecture)
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=24))
    assert result.info.metrics == validation_metrics(small, context)
    assert any("parameters" in note for note in result.info.lineage[-1].config["notes"])


@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("first", STEPS)
def test_any_two_steps_work_one_after_the_other(apply, after, first, second):
    if first == second == "quantise":
        pytest.skip("a checkpoint carries one quantisation")
    one = after(first)
    two = apply(second, source=one)
    assert torch.isfinite(outputs(two.load())).all()
    assert [step.stage for step in two.info.lineage] == [first, second]
    assert (two.info.quantisation is not None) == ("quantise" in (first, second))
    if second in SHRINKING:
        assert parameters(two.load()) <= parameters(one.load())


@pytest.mark.parametrize("name", SHRINKING)
def test_kept_layers_stay_as_they_are(checkpoint, apply, after, name):
    changed = list(after(name).info.modules)
    keep = changed[len(changed) // 2]
    result = apply(name, config=STEPS[name].model_copy(update={"keep": (keep,)}))
    assert keep not in result.info.modules
    before, kept = checkpoint.load().get_submodule(keep), result.load().get_submodule(keep)
    weights = dict(kept.named_parameters())  # statistics of BatchNorm follow what comes in, which has changed
    assert all(torch.equal(tensor, weights[key]) for key, tensor in before.named_parameters())


SMALL_SET = {"samples": 16}
VARIANTS = {
    "vbmf": ("decompose", {"ranks": "vbmf", "recover": UNTRAINED}),
    "budget": ("decompose", {"ranks": "budget", "target": {"multiply_adds": 0.8}, "recover": UNTRAINED}),
    "svd": ("decompose", {"method": "svd", "energy": 0.6, "aware": False, "recover": UNTRAINED}),
    "cp": ("decompose", {"method": "cp", "energy": 0.4, "recover": UNTRAINED}),
    "tensor_train": ("decompose", {"method": "tensor_train", "energy": 0.5, "recover": UNTRAINED}),
    "features": ("distil", {"epochs": 1, "batch_size": 16, "features": {}}),
    "attention": ("distil", {"epochs": 1, "batch_size": 16, "features": {"loss": "attention"}}),
    "qat": ("quantise", {"qat": {"epochs": 1, "batch_size": 16}, "calibration": SMALL_SET}),
    "equalise": ("quantise", {"equalise": True, "bias_correction": True, "calibration": SMALL_SET}),
    "mixed": ("quantise", {"mixed": {"quality_drop": 0.0}, "calibration": SMALL_SET}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_write_checkpoints_that_load_and_take_the_next_step(checkpoint, apply, name):
    technique, settings = VARIANTS[name]
    result = apply(technique, config=CONFIGS[technique](**settings), folder="variant")
    assert torch.isfinite(outputs(Checkpoint(result.directory).load())).all()
    if technique == "decompose":
        layers = result.info.lineage[-1].config["layers"]
        assert {layer["layer"] for layer in layers} == set(result.info.modules)
        before, after = (sum(layer["multiply_adds"][side] for layer in layers) for side in (0, 1))
        original = multiply_adds(checkpoint.load(), checkpoint.info.architecture)
        assert multiply_adds(result.load(), result.info.architecture) == original - before + after
        if name == "budget":
            assert original - before + after <= 0.8 * original
    assert torch.isfinite(outputs(apply("prune", source=result, folder="prune").load())).all()


STUDENTS = {
    "efficientnet_lite0": {"width": 0.35, "depth": 0.5, "weights": "pretrained"},
    "mobilenet_v2": {"width": 0.35, "depth": 0.5},
    "resnet18": {"width": 0.125, "depth": 0.5},
    "vgg11": {"width": 0.125},
}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("checkpoint", ["own factory", "resnet18"], indirect=True)
def test_a_student_of_another_family_takes_the_place_of_the_network(checkpoint, apply, student):
    settings = {"family": student, **STUDENTS[student]}
    config = CONFIGS["distil"](epochs=1, batch_size=16, student=settings, features={})
    result = apply("distil", config=config)
    architecture, teacher = result.info.architecture, checkpoint.info.architecture
    assert architecture.family == student
    assert (architecture.outputs, architecture.height) == (teacher.outputs, teacher.height)
    assert (result.info.labels, result.info.preprocess) == (checkpoint.info.labels, checkpoint.info.preprocess)
    assert "projections" not in " ".join(result.load().state_dict())
    notes = "\n".join(result.info.lineage[-1].config["notes"])
    assert f"the student is a new {student}" in notes
    pretrained = settings.get("weights") == "pretrained"
    assert ("its weights were made for pixels of mean" in notes) == (
        pretrained and PREPROCESS.mean != MODELS[student].preprocess.mean
    )
    current = result
    for following in ("prune", "decompose", "quantise"):
        current = apply(following, source=current, folder=following)
    assert torch.isfinite(outputs(current.load())).all()
    assert current.info.architecture == architecture
    with pytest.raises(RecipeError, match="a new student would undo distil, prune, decompose, quantise"):
        apply("distil", config=config, source=current, folder="again")


def test_an_unknown_technique_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=f"unknown technique 'squash'; known: {', '.join(sorted(TECHNIQUES))}"):
        load_technique("squash")


def test_a_technique_is_in_every_table():
    assert set(TECHNIQUES) == set(CONFIGS) == set(stage.CODE_VERSIONS) == set(stage.TOOLS)


def test_every_family_is_tested():
    def place(family):
        build = MODELS[family].build
        return getattr(build, "func", build).__module__  # sizes of one family share a function

    tested = {architecture.family for architecture in ARCHITECTURES.values() if architecture.family}
    tested.add("style_net")  # gives pictures, not labels: in tests/integration/test_style.py
    assert {place(family) for family in MODELS} == {place(family) for family in tested}
