"""The fine-tuning stage on the tiny network: reuse, resumption, weights from files, clear refusals."""

import importlib
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from phonefit.models.errors import FileFormatError, ModelError
from phonefit.pipeline.convert.stage import convert_stage
from phonefit.pipeline.finetune import base_preprocess, finetune
from phonefit.pipeline.recipe import ConvertConfig, DataConfig, ModelConfig, ParityConfig, Recipe
from phonefit.pipeline.recipe_steps import FinetuneConfig
from phonefit.pipeline.train import validation_metrics
from tests.tiny import LABELS, build, tiny_context

LENIENT = ParityConfig(samples=4, cosine=-1, snr_db=-100, agreement=0)
TUNE = FinetuneConfig(epochs=3, learning_rate=0.01, batch_size=16, freeze_epochs=1)


def recipe(**model):
    return Recipe(
        name="tiny",
        model=ModelConfig(factory="tests.tiny:build", **model),
        data=DataConfig(source="demo"),
        finetune=TUNE,
    )


def weights_file(path, **build_arguments):
    torch.manual_seed(9)
    save_file(build(len(LABELS), **build_arguments).state_dict(), path)
    return str(path)


def test_the_checkpoint_knows_its_task_and_keeps_the_quality_it_reports(tmp_path):
    context = tiny_context(tmp_path)
    result, checkpoint = finetune(recipe(), context)
    info = checkpoint.info
    assert (info.labels, info.task, info.preprocess) == (LABELS, "classification", context.data.preprocess)
    assert info.metrics["accuracy"] > 0.9
    assert validation_metrics(checkpoint.load(), context) == info.metrics
    assert info.lineage[0].stage == "finetune"
    assert checkpoint.directory == result.path


def test_a_second_call_reuses_the_result_and_a_fresh_store_gives_the_same_digest(tmp_path):
    first, checkpoint = finetune(recipe(), tiny_context(tmp_path / "a"))
    second, _ = finetune(recipe(), tiny_context(tmp_path / "a"))
    third, again = finetune(recipe(), tiny_context(tmp_path / "b"))
    assert (first.reused, second.reused, third.reused) == (False, True, False)
    assert again.digest == checkpoint.digest


def test_what_shapes_the_result_is_part_of_its_key(tmp_path):
    context, other = (
        tiny_context(tmp_path),
        recipe().model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 1})}),
    )
    keys = {finetune(recipe(), context)[0].key, finetune(other, context)[0].key}
    keys |= {finetune(recipe(), replace(context, seed=1))[0].key}
    keys |= {finetune(recipe(weights=weights_file(tmp_path / "w.safetensors")), context)[0].key}
    assert len(keys) == 4


def test_an_interrupted_fine_tuning_goes_on_and_gives_the_same_digest(tmp_path):
    class Interrupted:
        @contextmanager
        def stage(self, title, total=None):
            def advance(steps=1, note=""):
                if note.startswith("epoch 2"):
                    raise KeyboardInterrupt

            yield advance

    _, whole = finetune(recipe(), tiny_context(tmp_path / "a"))
    context = tiny_context(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe(), replace(context, progress=Interrupted()))
    resumes = tmp_path / "b/runs/store/resume"
    assert len(list(resumes.iterdir())) == 1
    _, resumed = finetune(recipe(), context)
    assert resumed.digest == whole.digest
    assert not list(resumes.iterdir())


def test_weights_from_a_file_are_where_training_starts(tmp_path):
    path = weights_file(tmp_path / "w.safetensors")
    untrained = recipe(weights=path).model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 0})})
    _, checkpoint = finetune(untrained, tiny_context(tmp_path))
    torch.manual_seed(9)
    expected = build(len(LABELS)).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in checkpoint.load().state_dict().items())


def test_the_place_of_a_weights_file_does_not_matter_its_content_does(tmp_path):
    context = tiny_context(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    first, _ = finetune(recipe(weights=weights_file(tmp_path / "w.safetensors")), context)
    second, _ = finetune(recipe(weights=weights_file(tmp_path / "elsewhere/w.safetensors")), context)
    assert second.reused and second.key == first.key


def test_weights_of_another_network_are_refused(tmp_path):
    path = weights_file(tmp_path / "w.safetensors", channels=8)
    with pytest.raises(ModelError, match=r"w\.safetensors.*do not fit"):
        finetune(recipe(weights=path), tiny_context(tmp_path))


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileFormatError, match=r"model\.weights: .*nowhere\.pt: no such file"):
        finetune(recipe(weights=str(tmp_path / "nowhere.pt")), tiny_context(tmp_path))


def test_an_edited_factory_is_another_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from tests.tiny import build as tiny\n\ndef build(outputs):\n    return tiny(outputs, channels={})\n"
    (tmp_path / "my_network.py").write_text(source.format(16))
    own = recipe().model_copy(update={"model": ModelConfig(factory="my_network:build")})
    first, _ = finetune(own, tiny_context(tmp_path))
    (tmp_path / "my_network.py").write_text(source.format(8) + "# edited\n")
    importlib.reload(sys.modules["my_network"])
    second, changed = finetune(own, tiny_context(tmp_path))
    assert second.key != first.key
    assert changed.load()[0].out_channels == 8


def test_a_family_brings_its_own_preprocessing():
    assert base_preprocess(ModelConfig(family="efficientnet_lite0")).mean == (127, 127, 127)
    assert base_preprocess(ModelConfig(factory="tests.tiny:build")).height == 224


def test_a_factory_in_the_current_folder_has_one_key(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network_here.py").write_text("from tests.tiny import build\n")
    own = recipe().model_copy(update={"model": ModelConfig(factory="network_here:build")})
    first, _ = finetune(own, tiny_context(tmp_path))
    second, _ = finetune(own, tiny_context(tmp_path))
    assert second.reused and second.key == first.key


def test_a_factory_that_is_not_there_is_explained_before_any_work(tmp_path):
    own = recipe().model_copy(update={"model": ModelConfig(factory="no_such_module:build")})
    with pytest.raises(ModelError, match="no_such_module:build' cannot be imported"):
        finetune(own, tiny_context(tmp_path))
    assert not list((tmp_path / "runs").rglob("stage.json"))


WEIGHTLESS = """
from torch import nn
from BLOCKS import activation

def build(outputs):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs)
    )
"""
BLOCKS = "from torch import nn\n\ndef activation():\n    return nn.{}()\n"


@pytest.mark.parametrize(
    ("factory", "network", "blocks"),
    [
        ("my_net:build", "my_net.py", "my_blocks.py"),
        ("my_package.nets.my_net:build", "my_package/nets/my_net.py", "my_package/my_blocks.py"),
        ("my_nets.my_net:build", "my_nets/my_net.py", "my_blocks/layers.py"),
    ],
)
def test_a_change_in_what_a_factory_imports_is_another_checkpoint(tmp_path, monkeypatch, factory, network, blocks):
    monkeypatch.syspath_prepend(str(tmp_path))
    place = blocks.removesuffix(".py").replace("/", ".")
    source = WEIGHTLESS.replace("BLOCKS", place)
    for path, text in {network: source, blocks: BLOCKS.format("ReLU"), "unrelated.py": "ONE = 1\n"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    own = recipe().model_copy(
        update={"model": ModelConfig(factory=factory), "finetune": TUNE.model_copy(update={"epochs": 0})}
    )
    context = tiny_context(tmp_path)
    own_modules = [place, factory.partition(":")[0]]
    try:
        first, before = finetune(own, context)
        (tmp_path / "unrelated.py").write_text("ONE = 2\n")  # not imported by the network
        assert finetune(own, context)[0].key == first.key
        (tmp_path / blocks).write_text(BLOCKS.format("Hardswish") + "# longer\n")
        for name in own_modules:
            importlib.reload(sys.modules[name])
        second, after = finetune(own, context)
        assert second.key != first.key
        assert after.info.weights_sha256 == before.info.weights_sha256
        assert after.digest != before.digest  # so that conversion and what follows are done again
    finally:
        for name in [name for name in sys.modules if name.startswith("my_")]:
            del sys.modules[name]


def test_files_do_not_say_where_the_weights_lay(tmp_path):
    lying_at = tmp_path / "home of a person"
    lying_at.mkdir()
    path = weights_file(lying_at / "w.safetensors")
    untrained = recipe(weights=path).model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 0})})
    context = tiny_context(tmp_path)
    _, checkpoint = finetune(untrained, context)
    _, _, model, _ = convert_stage(checkpoint, "onnx", context, ConvertConfig(parity=LENIENT))
    for described in (checkpoint.directory / "model.json", model.with_name(f"{model.name}.json")):
        text = described.read_text()
        assert "parameters from w.safetensors" in text
        assert str(tmp_path) not in text


def test_a_checkpoint_keeps_the_labels_that_are_still_there_in_any_order(tmp_path):
    _, old = finetune(recipe(), tiny_context(tmp_path))
    context = tiny_context(tmp_path)
    context.data.labels = ("blue", "mauve", "red")
    started = recipe(weights=str(old.directory)).model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 0})})
    _, extended = finetune(started, context)
    rows, known = (one.load()[-1].weight for one in (extended, old))
    assert torch.equal(rows[0], known[LABELS.index("blue")])
    assert torch.equal(rows[2], known[LABELS.index("red")])
    assert not any(torch.equal(rows[1], row) for row in known)
    assert torch.equal(extended.load()[0].weight, old.load()[0].weight)
    assert "knew 2 of the 3 labels" in extended.info.lineage[0].config["notes"][0]


def test_new_labels_replace_the_head_of_a_checkpoint_also_where_there_are_more(tmp_path):
    _, old = finetune(recipe(), tiny_context(tmp_path))
    context = tiny_context(tmp_path)
    context.data.labels = ("one", "two", "three", "four")
    started = recipe(weights=str(old.directory)).model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 0})})
    _, replaced = finetune(started, context)
    assert replaced.load()[-1].weight.shape[0] == 4
    assert "knew none of the labels" in replaced.info.lineage[0].config["notes"][0]


def test_cached_features_train_the_head_and_count_for_the_key(tmp_path):
    cached = recipe().model_copy(update={"finetune": TUNE.model_copy(update={"cached_features": True})})
    result, checkpoint = finetune(cached, tiny_context(tmp_path))
    assert result.key != finetune(recipe(), tiny_context(tmp_path))[0].key
    assert checkpoint.info.metrics["accuracy"] > 0.9


def test_later_settings_at_their_defaults_leave_the_key_as_it_was(tmp_path):
    settings = finetune(recipe(), tiny_context(tmp_path))[1].info.lineage[0].config["finetune"]
    assert not {"layer_decay", "cached_features"} & set(settings)


def test_a_checkpoint_with_the_same_labels_is_taken_as_it_is(tmp_path):
    _, old = finetune(recipe(), tiny_context(tmp_path))
    started = recipe(weights=str(old.directory)).model_copy(update={"finetune": TUNE.model_copy(update={"epochs": 0})})
    _, again = finetune(started, tiny_context(tmp_path))
    assert all(torch.equal(tensor, old.load().state_dict()[name]) for name, tensor in again.load().state_dict().items())
