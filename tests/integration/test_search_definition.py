"""A study's trials can be compared: it is tied to the contents of its files and to the versions that made them."""

import copy
import sys
from functools import partial
from importlib.metadata import version

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from phonefit.pipeline import measure
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search import definition, front, study
from phonefit.pipeline.search.study import search
from tests.integration.test_search_study import SPACE, objective, points
from tests.tiny import LABELS, build, write_folder

VERSION = measure.CODE_VERSION


@pytest.fixture
def own_study(tmp_path, monkeypatch):
    """A search with trials of its own over pictures, weights and a factory on disk, up to where its trials begin."""
    monkeypatch.setattr(study, "evaluation", lambda own, runs, progress: lambda recipe, checks: objective(recipe))
    monkeypatch.setattr(front, "with_front_tested", lambda result, recipe, runs, progress: result)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "searched_net.py").write_text("from tests.tiny import build\n")
    torch.manual_seed(0)
    save_file(build(len(LABELS)).state_dict(), tmp_path / "w.safetensors")
    recipe = Recipe(
        name="study",
        model={"factory": "searched_net:build", "weights": str(tmp_path / "w.safetensors")},
        data={"source": "image_folder", "path": str(write_folder(tmp_path / "pictures", per_class=4))},
        search={"space": SPACE, "objectives": ["quality", "latency_p90_ms"]},
    )
    yield partial(search, recipe, runs=tmp_path / "runs")
    sys.modules.pop("searched_net", None)


def replace_a_picture(folder, monkeypatch):
    Image.new("RGB", (32, 32), "white").save(folder / "pictures/red/000.png")


def replace_the_weights(folder, monkeypatch):
    torch.manual_seed(1)
    save_file(build(len(LABELS)).state_dict(), folder / "w.safetensors")


def edit_the_factory(folder, monkeypatch):
    (folder / "searched_net.py").write_text("from tests.tiny import build  # edited\n")


def raise_a_code_version(folder, monkeypatch):
    monkeypatch.setattr(measure, "CODE_VERSION", measure.CODE_VERSION + 1)


def update_a_tool(folder, monkeypatch):
    monkeypatch.setattr(definition, "version", lambda package: "99" if package == "torch" else version(package))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace_a_picture, "digest of the pictures: the study has"),
        (replace_the_weights, "digest of the weights of"),
        (edit_the_factory, "digest of the code of searched_net:build"),
        (raise_a_code_version, f"code version of measure: the study has {VERSION}, now it is {VERSION + 1}"),
        (update_a_tool, "version of torch"),
    ],
)
def test_a_study_is_about_its_pictures_weights_and_code(own_study, tmp_path, monkeypatch, change, words):
    own_study(trials=1)
    assert len(points(own_study(trials=2))) == 2
    change(tmp_path, monkeypatch)
    with pytest.raises(RecipeError, match="name=study-2") as caught:
        own_study(trials=3)
    (line,) = str(caught.value).splitlines()[1:-1]
    assert line.strip().startswith(words)


def test_choices_of_models_may_be_searched_with_and_without_packaged_weights(tmp_path):
    space = {"model.family": ["resnet18", "efficientnet_lite0"], "model.weights": ["random", "pretrained"]}
    data = {"source": "image_folder", "path": str(write_folder(tmp_path / "pictures"))}
    recipe = Recipe(name="study", model={"family": "resnet18"}, data=data, search={"space": space})
    found = definition.surroundings_of(recipe, tmp_path / "runs", SilentProgress())
    weights = [name for name in found if "weights" in name]
    assert weights == ["digest of the weights of efficientnet_lite0, pretrained"]


def test_a_study_of_an_older_phonefit_goes_on_where_new_fields_have_their_default():
    steps = [{"technique": "prune", "ratio": 0.2}]
    recipe = Recipe(name="study", model={"family": "resnet18"}, data={"source": "demo"}, compress=steps)
    now = {**definition.definition_of(recipe), "version of torch": "2"}
    given, older = definition.without_defaults(now, recipe), copy.deepcopy(now)
    del older["finetune"]["epochs"], older["convert"]["parity"], older["compress"][0]["recover"]
    assert list(definition.differences(older, now, given)) == []
    strict = [where for where, *_ in definition.differences(older, now)]
    assert sorted(strict) == ["compress", "convert.parity", "finetune.epochs"]
    del older["model"]["family"], older["compress"][0]["ratio"], older["version of torch"]
    different = [where for where, *_ in definition.differences(older, now, given)]
    assert sorted(different) == ["compress", "model.family", "version of torch"]
