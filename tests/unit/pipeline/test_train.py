import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from phonefit.models.tasks import task
from phonefit.models.tasks.classification import Classification
from phonefit.models.tasks.options import EmbeddingOptions
from phonefit.pipeline.augment import augmented
from phonefit.pipeline.errors import TrainingError
from phonefit.pipeline.recipe_steps import TrainConfig
from phonefit.pipeline.train import head_layers, train, validation_metrics, validation_outputs
from tests.tiny import LABELS, PREPROCESS, TinyPictures, build, tiny_context

CONFIG = TrainConfig(epochs=2, learning_rate=0.01, batch_size=16)


def tiny_network(seed=0):
    torch.manual_seed(seed)
    return build(len(LABELS))


def same_state(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


class Interrupted:
    """Progress that stops the process, as it were, when a note appears."""

    def __init__(self, at):
        self.at = at

    @contextmanager
    def stage(self, title, total=None):
        def advance(steps=1, note=""):
            if note.startswith(self.at):
                raise KeyboardInterrupt

        yield advance


def test_training_learns_and_reports_each_epoch(tmp_path):
    network, context = tiny_network(), tiny_context(tmp_path)
    outcome = train(network, context, CONFIG.model_copy(update={"epochs": 4}), title="t")
    assert outcome.metrics["accuracy"] > 0.9 > outcome.history[0].quality
    assert [epoch.number for epoch in outcome.history] == [0, 1, 2, 3, 4]
    assert outcome.history[4].loss < outcome.history[1].loss
    assert outcome.metrics == validation_metrics(network, context)
    assert not network.training


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    networks = []
    for seed in (0, 0, 1):
        network = tiny_network()
        train(network, replace(tiny_context(tmp_path), seed=seed), CONFIG, title="t")
        networks.append(network)
    assert same_state(networks[0], networks[1])
    assert not same_state(networks[0], networks[2])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, optimizer):
    config = CONFIG.model_copy(update={"epochs": 3, "optimizer": optimizer})
    context = tiny_context(tmp_path)
    uninterrupted = tiny_network()
    uninterrupted.insert(9, nn.Dropout(0.5))  # draws random numbers of its own
    whole = train(uninterrupted, context, config, title="t")

    resume = tmp_path / "resume"
    network = tiny_network()
    network.insert(9, nn.Dropout(0.5))
    with pytest.raises(KeyboardInterrupt):
        train(network, replace(context, progress=Interrupted("epoch 2")), config, title="t", resume=resume)
    assert resume.is_file()

    network = tiny_network(seed=1)  # a new process; what it starts from is overwritten
    network.insert(9, nn.Dropout(0.5))
    resumed = train(network, context, config, title="t", resume=resume)
    assert same_state(network, uninterrupted)
    assert resumed.history[1:] == whole.history[1:]
    assert not resume.exists()


def test_what_learns_in_training_only_is_interrupted_and_goes_on_too(tmp_path):
    config = CONFIG.model_copy(update={"epochs": 3})
    context = replace(tiny_context(tmp_path), task=task(EmbeddingOptions(size=len(LABELS))))
    uninterrupted = tiny_network()
    whole = train(uninterrupted, context, config, title="t")
    resume, network = tmp_path / "resume", tiny_network()
    with pytest.raises(KeyboardInterrupt):
        train(network, replace(context, progress=Interrupted("epoch 2")), config, title="t", resume=resume)
    (vectors,) = torch.load(resume)["criterion"].keys() - {"known"}
    assert torch.load(resume)["criterion"][vectors].shape == (len(LABELS), len(LABELS))
    assert {name for name, _ in network.named_parameters()} == {name for name, _ in tiny_network().named_parameters()}
    network = tiny_network()
    assert train(network, context, config, title="t", resume=resume).history[1:] == whole.history[1:]
    assert same_state(network, uninterrupted)
    assert whole.metrics["verification_accuracy"] > max(0.8, whole.history[0].quality)


def test_a_damaged_resume_file_is_ignored(tmp_path):
    resume = tmp_path / "resume"
    resume.write_bytes(b"half a file")
    network, fresh = tiny_network(), tiny_network()
    train(network, tiny_context(tmp_path), CONFIG, title="t", resume=resume)
    train(fresh, tiny_context(tmp_path), CONFIG, title="t")
    assert same_state(network, fresh)


class WronglyLabelled(TinyPictures):
    """Training teaches what validation punishes."""

    def targets(self, side):
        return (super().targets(side) + 1) % 3 if side == "train" else super().targets(side)


def test_the_best_epoch_is_kept(tmp_path):
    network, context = tiny_network(), tiny_context(tmp_path)
    train(network, context, CONFIG.model_copy(update={"epochs": 4}), title="good")
    before = validation_outputs(network, context)
    outcome = train(network, replace(context, data=WronglyLabelled()), CONFIG, title="wrong")
    assert outcome.best_epoch == 0
    assert outcome.history[2].quality < outcome.metrics["accuracy"]
    np.testing.assert_allclose(validation_outputs(network, context), before, atol=1e-5)


def test_early_stop_ends_a_training_that_gains_nothing(tmp_path):
    context = replace(tiny_context(tmp_path), data=WronglyLabelled())
    train(network := tiny_network(), tiny_context(tmp_path), CONFIG, title="good")
    outcome = train(network, context, CONFIG.model_copy(update={"epochs": 9}), title="wrong", early_stop=2)
    assert outcome.stopped_early
    assert (outcome.best_epoch, len(outcome.history)) == (0, 3)


def test_only_the_head_learns_while_the_rest_is_frozen(tmp_path):
    network, before = tiny_network(), tiny_network()
    assert head_layers(network) == ("9",)
    train(network, tiny_context(tmp_path), CONFIG, title="t", freeze_epochs=2)
    changed = {
        name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])
    }
    assert changed == {"9.weight", "9.bias"}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_after_the_frozen_epochs_everything_learns(tmp_path):
    network, before = tiny_network(), tiny_network()
    train(network, tiny_context(tmp_path), CONFIG.model_copy(update={"epochs": 3}), title="t", freeze_epochs=1)
    assert not torch.equal(network[0].weight, before[0].weight)


def test_hidden_layers_belong_to_the_head():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    assert head_layers(network) == ("2", "4")
    assert head_layers(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1))) == ("1",)


def test_a_diverging_training_says_what_to_do(tmp_path):
    network = tiny_network()
    network[-1].bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, step 1, at learning_rate 0\.01.*lower"):
        train(network, tiny_context(tmp_path), CONFIG, title="t")


def norm_on_vectors():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, len(LABELS))
    )


def test_a_last_batch_of_one_picture_is_no_problem(tmp_path):
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=33))
    outcome = train(norm_on_vectors(), context, CONFIG, title="t")
    assert all(math.isfinite(epoch.loss) for epoch in outcome.history[1:])


def test_a_batch_size_that_batchnorm_cannot_take_is_explained(tmp_path):
    with pytest.raises(TrainingError, match="batch_size is 1, use at least 2"):
        train(norm_on_vectors(), tiny_context(tmp_path), CONFIG.model_copy(update={"batch_size": 1}), title="t")


def test_the_student_approaches_its_teacher_and_leaves_it_unchanged(tmp_path):
    context = tiny_context(tmp_path)
    teacher = tiny_network(seed=5)
    train(teacher, context, CONFIG.model_copy(update={"epochs": 4}), title="teacher")
    untouched = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = tiny_network()

    def distance():
        return np.abs(validation_outputs(student, context) - validation_outputs(teacher, context)).mean()

    before = distance()
    train(student, context, CONFIG, title="t", teacher=teacher, temperature=2.0, teacher_weight=1.0)
    assert distance() < before
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in teacher.state_dict().items())


def test_balanced_class_weights_give_rare_classes_the_same_say(tmp_path):
    class Spy(Classification):
        def __init__(self):
            self.weights = []

        def loss(self, outputs, targets, class_weights):
            self.weights.append(class_weights)
            return super().loss(outputs, targets, class_weights)

    class Unbalanced(TinyPictures):
        def targets(self, side):
            return np.array([0] * 24 + [1] * 16 + [2] * 8)

    spy = Spy()
    context = replace(tiny_context(tmp_path), task=spy, data=Unbalanced())
    train(tiny_network(), context, CONFIG.model_copy(update={"epochs": 1, "class_weights": "balanced"}), title="t")
    used = [weights for weights in spy.weights if weights is not None]
    assert len(used) == 3  # the training batches; the validation loss is not weighted
    torch.testing.assert_close(used[0], torch.tensor([48 / 72, 48 / 48, 48 / 24]))


def test_zero_epochs_evaluate_only(tmp_path):
    network, before = tiny_network(), tiny_network()
    outcome = train(network, tiny_context(tmp_path), CONFIG.model_copy(update={"epochs": 0}), title="t")
    assert same_state(network, before)
    assert outcome.best_epoch == 0
    assert set(outcome.metrics) == {"accuracy", "balanced_accuracy"}


def test_global_settings_of_torch_are_left_as_they_were(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(tiny_network_without_seeding(), tiny_context(tmp_path), CONFIG, title="t")
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def tiny_network_without_seeding():
    with torch.random.fork_rng(devices=[]):
        return build(len(LABELS))


def picture_batch():
    return torch.from_numpy(TinyPictures().pixels("train")[:8])


def test_without_augmentation_training_sees_what_evaluation_sees():
    config = TrainConfig(flip="none", shift=0)
    result = augmented(picture_batch(), config, PREPROCESS, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(result.numpy(), TinyPictures().inputs("train", 0, 8), rtol=1e-6)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_a_horizontal_flip_mirrors_some_pictures_as_a_whole():
    config = TrainConfig(flip="horizontal", shift=0)
    result = augmented(picture_batch(), config, PREPROCESS, torch.Generator().manual_seed(0))
    plain = torch.from_numpy(TinyPictures().inputs("train", 0, 8))
    mirrored = [torch.allclose(one, other.flip(2)) for one, other in zip(result, plain, strict=True)]
    same = [torch.allclose(one, other) for one, other in zip(result, plain, strict=True)]
    assert [one != other for one, other in zip(mirrored, same, strict=True)] == [True] * 8
    assert any(mirrored) and any(same)


def test_a_shift_moves_by_at_most_its_share_and_repeats_the_edge():
    columns = torch.arange(32, dtype=torch.uint8).reshape(1, 1, 32, 1).expand(64, 32, 32, 3)
    config = TrainConfig(flip="none", shift=0.1)
    result = augmented(columns, config, PREPROCESS, torch.Generator().manual_seed(0))
    seen = (result[:, 0, 0, :] * 128 + 127).round()
    offsets = seen[:, 16] - 16
    assert offsets.min() == -3 and offsets.max() == 3
    expected = (torch.arange(32) + offsets[:, None]).clamp(0, 31)
    torch.testing.assert_close(seen, expected)


def test_early_layers_learn_at_a_lower_rate(tmp_path):
    def moved(decay):
        network = tiny_network()
        before = [parameter.detach().clone() for parameter in network.parameters()]
        config = CONFIG.model_copy(update={"epochs": 1, "optimizer": "sgd"})
        train(network, tiny_context(tmp_path), config, title="t", layer_decay=decay)
        pairs = zip(network.parameters(), before, strict=True)
        return [float((new.detach() - old).norm() / old.norm().clamp(min=1)) for new, old in pairs]

    even, decayed = moved(1.0), moved(1e-4)
    assert decayed[0] < 0.01 * even[0]
    assert decayed[-2] > 0.3 * even[-2]  # the last layer's weights learn as before
