"""Training of the head alone, on features that are computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture
from phonefit.models.tasks import task
from phonefit.models.tasks.options import RegressionOptions
from phonefit.pipeline.errors import ModelError
from phonefit.pipeline.few_shot import _DirectionProbe, _Probe, _probe, train_head
from phonefit.pipeline.recipe_steps import FinetuneConfig
from phonefit.pipeline.train import head_layers
from tests.tiny import LABELS, PREPROCESS, SIZE, TinyPictures, build, tiny_context

CONFIG = FinetuneConfig(cached_features=True)


def network(outputs=3):
    torch.manual_seed(0)
    return build(outputs).eval()


def features_of(made, context, side):
    body = nn.Sequential(*list(made)[:-1])
    inputs = context.data.inputs(side, 0, len(context.data.targets(side)))
    with torch.no_grad():
        return body(torch.from_numpy(inputs)).numpy()


def test_only_the_head_changes_and_the_pictures_are_learned(tmp_path):
    made, context = network(), tiny_context(tmp_path)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    outcome = train_head(made, context, CONFIG, "few")
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{head_layers(made)[-1]}.{part}" for part in ("weight", "bias")}
    assert outcome.best_epoch == 1
    assert outcome.history[0].quality < 0.6 < 0.95 < outcome.history[1].quality
    assert not made.training


def test_it_finds_the_optimum_that_logistic_regression_has(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    context, made, strength = tiny_context(tmp_path), network(len(LABELS)), 0.01
    features, targets = features_of(made, context, "train"), context.data.targets("train")
    probe = _Probe(made[-1], torch.from_numpy(features).double(), torch.from_numpy(targets), context, CONFIG)
    ours = probe.fitted(np.arange(len(targets)), strength)
    theirs = linear_model.LogisticRegression(C=1 / (2 * len(targets) * strength), tol=1e-8, max_iter=10_000)
    theirs.fit(probe.features.numpy(), targets)
    with torch.no_grad():
        found = ours(torch.from_numpy(features)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(probe.features.numpy()), atol=2e-3)


def test_one_class_of_several_is_learned_from_rows_of_one_length(tmp_path):
    linear_model = pytest.importorskip("sklearn.linear_model")
    context, made, strength = tiny_context(tmp_path), network(len(LABELS)), 0.01
    features, targets = torch.from_numpy(features_of(made, context, "train")), context.data.targets("train")
    probe = _probe(made[-1], features.double(), torch.from_numpy(targets), context, CONFIG)
    ours = probe.fitted(np.arange(len(targets)), strength)
    theirs = linear_model.LogisticRegression(
        C=1 / (2 * len(targets) * strength), tol=1e-8, max_iter=10_000, fit_intercept=False
    ).fit(probe.features.numpy(), targets)
    lengths = features.norm(dim=1, keepdim=True)
    with torch.no_grad():
        logits = ours(features) * lengths.mean() / lengths
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), theirs.predict_proba(probe.features.numpy()), atol=2e-3)
    assert (ours(features).argmax(dim=1).numpy() == theirs.predict(probe.features.numpy())).all()


def test_a_class_with_long_and_spread_features_does_not_lose_its_short_ones(tmp_path):
    random, context = np.random.default_rng(0), tiny_context(tmp_path)
    targets = np.repeat([0, 1, 2], 200)
    lengths = np.where(targets == 0, random.uniform(2, 9, 600), random.uniform(2, 3, 600))
    directions = np.eye(32)[targets] + 0.3 + 0.1 * random.random((600, 32))
    features = torch.from_numpy(directions * lengths[:, None])
    few = np.concatenate([np.flatnonzero((targets == label) & ((lengths > 5) | (label > 0)))[:4] for label in range(3)])
    rows, classes = features[few], torch.from_numpy(targets[few])

    def correct(kind):
        head = kind(nn.Linear(32, 3), rows, classes, context, CONFIG).fitted(np.arange(len(few)), 1e-3)
        return (head(features.float()).argmax(dim=1).numpy() == targets).mean()

    assert correct(_DirectionProbe) > 0.95 > correct(_Probe)


def test_classes_that_differ_in_length_alone_are_told_apart(tmp_path):
    context, targets = tiny_context(tmp_path), torch.arange(30) % 2
    noise = torch.from_numpy(np.random.default_rng(0).random((30, 8)))
    features = (1 + targets.double()[:, None]) * (1 + 0.01 * noise)
    head = _DirectionProbe(nn.Linear(8, 2), features, targets, context, CONFIG).fitted(np.arange(30), 1e-5)
    assert (head(features.float()).argmax(dim=1) == targets).all()


def test_a_regression_learns_its_numbers(tmp_path):
    class Numbers(TinyPictures):
        def targets(self, side):
            return self.pixels(side)[..., 0].mean((1, 2)).astype(np.float32)

    data = Numbers()
    made = task(RegressionOptions(loss="l1")).fitted(["level"], data.targets("train"), PREPROCESS)
    outcome = train_head(network(1), replace(tiny_context(tmp_path), task=made, data=data), CONFIG, "few")
    _, without = made.baseline(data.targets("train"), data.targets("validation"))
    assert outcome.metrics["mean_absolute_error"] < without["mean_absolute_error"] / 2


def test_a_head_with_hidden_layers_learns_too(tmp_path):
    architecture = Architecture(
        family="mobilenet_v2", width=0.1, head={"hidden": (8,)}, outputs=3, height=SIZE, width_pixels=SIZE
    )
    torch.manual_seed(0)
    made = build_network(architecture)
    before = made.get_submodule("head.hidden0").weight.clone()
    outcome = train_head(made, tiny_context(tmp_path), CONFIG, "few")
    assert not torch.equal(made.get_submodule("head.hidden0").weight, before)
    assert outcome.history[1].quality > outcome.history[0].quality


def test_a_network_that_does_not_end_with_its_last_layer_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cached_features needs a network that ends with a linear layer"):
        train_head(nn.Sequential(*network(), nn.Softmax(dim=1)), tiny_context(tmp_path), CONFIG, "few")


def test_a_head_without_a_bias_is_refused(tmp_path):
    made = network()
    made[-1] = nn.Linear(made[-1].in_features, 3, bias=False)
    with pytest.raises(ModelError, match="linear layer with a bias"):
        train_head(made, tiny_context(tmp_path), CONFIG, "few")
