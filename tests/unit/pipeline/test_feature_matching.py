import pytest
import torch
from torch import nn

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.feature_matching import (
    FEATURE_LOSSES,
    attention_distance,
    match_features,
    normalised_distance,
    recorded,
)
from phonefit.pipeline.recipe_steps import FeatureConfig
from phonefit.pipeline.train import train
from tests.tiny import LABELS, TinyPictures, build, tiny_context

PICTURE = torch.zeros(1, 3, 32, 32)


def names(matching):
    return [(pair.student, pair.teacher) for pair in matching.pairs]


def test_the_last_layers_of_each_size_are_paired_and_projected_where_widths_differ():
    student, teacher = build(3, channels=8), build(3, channels=16)
    matching = match_features(student, teacher, FeatureConfig(), PICTURE)
    assert names(matching) == [("3", "3"), ("6", "6")]
    assert [(layer.in_channels, layer.out_channels) for layer in matching.projections] == [(8, 16), (16, 32)]
    same = match_features(teacher, build(3, channels=16), FeatureConfig(), PICTURE)
    assert not list(same.parameters())
    attention = match_features(student, teacher, FeatureConfig(loss="attention"), PICTURE)
    assert not list(attention.parameters())
    assert not student.training or all(module.training for module in student.modules())


def test_named_layers_are_paired():
    config = FeatureConfig(layers={"3.pointwise": "0"})
    assert names(match_features(build(3), build(3), config, PICTURE)) == [("3.pointwise", "0")]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"nowhere": "0"}, "layers of the student: the model has no layer nowhere"),
        ({"0": "nowhere"}, "layers of the teacher: the model has no layer nowhere"),
        ({"0": "4"}, "0 of the student gives 16x16, 4 of the teacher 8x8"),
        ({"9": "0"}, "layer 9 of the student gives no activation with a height and a width"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, message):
    with pytest.raises(RecipeError, match=message):
        match_features(build(3), build(3), FeatureConfig(layers=layers), PICTURE)


def test_networks_without_a_common_size_are_refused():
    flat = nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(RecipeError, match="no activations of the same height and width"):
        match_features(flat, build(3), FeatureConfig(), PICTURE)


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_a_loss_is_zero_for_equal_and_indifferent_to_scale(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5)
    function = FEATURE_LOSSES[loss]
    assert function(teacher, teacher) == 0
    assert function(student, teacher) > 0
    torch.testing.assert_close(function(7 * student, 7 * teacher), function(student, teacher))


def test_losses_follow_their_formulas():
    teacher = torch.tensor([0.0, 2.0, 0.0, 2.0]).reshape(1, 1, 2, 2)  # variance 4/3
    assert normalised_distance(teacher + 1, teacher) == pytest.approx(0.75)
    one = torch.zeros(1, 2, 2, 2)
    one[0, :, 0, 0] = 3
    other = torch.zeros(1, 5, 2, 2)
    other[0, :, 1, 1] = 2
    assert attention_distance(one, other) == pytest.approx(2)  # unit vectors at right angles


def test_nothing_is_left_behind_on_the_networks():
    network = build(3)
    with recorded(network, ["3", "6"]) as seen:
        network(torch.zeros(2, 3, 32, 32))
    assert {name: tuple(output.shape) for name, output in seen.items()} == {"3": (2, 16, 16, 16), "6": (2, 32, 8, 8)}
    assert not any(module._forward_hooks for module in network.modules())


def distance(student, teacher):
    inputs = torch.from_numpy(TinyPictures().inputs("validation", 0, 48))
    with torch.no_grad(), recorded(student, ["3", "6"]) as ours, recorded(teacher, ["3", "6"]) as theirs:
        student.eval()(inputs), teacher.eval()(inputs)
    return float(sum(normalised_distance(ours[name], theirs[name]) for name in ours))


@pytest.mark.parametrize("loss", FEATURE_LOSSES)
def test_a_student_comes_nearer_to_the_inner_activations(tmp_path, loss):
    from phonefit.pipeline.recipe_steps import TrainConfig

    context = tiny_context(tmp_path)
    torch.manual_seed(0)
    teacher = build(len(LABELS))
    config = TrainConfig(epochs=4, learning_rate=0.01, batch_size=16)
    train(teacher, context, config, title="teacher")
    distances, qualities = [], []
    for features in (None, FeatureConfig(loss=loss, weight=5)):
        torch.manual_seed(1)
        student = build(len(LABELS))
        outcome = train(student, context, config, title="s", teacher=teacher, teacher_weight=0.5, features=features)
        distances.append(distance(student, teacher))
        qualities.append(outcome.metrics["accuracy"])
    assert qualities[1] >= qualities[0]
    if loss == "mse":
        assert distances[1] < 0.8 * distances[0]


def test_features_alone_need_no_logits(tmp_path):
    from phonefit.pipeline.recipe_steps import TrainConfig

    context = tiny_context(tmp_path)
    torch.manual_seed(0)
    teacher, student = build(len(LABELS)), build(len(LABELS), channels=8)
    outcome = train(
        student, context, TrainConfig(epochs=1, batch_size=16), title="s", teacher=teacher, features=FeatureConfig()
    )
    assert len(outcome.history) == 2
    assert set(student.state_dict()) == set(build(len(LABELS), channels=8).state_dict())  # no projection in it
