"""BatchNorm's statistics after a change, and while a network trains."""

import torch

from phonefit.pipeline.statistics import quick_statistics, reestimate_statistics
from tests.tiny import LABELS, TinyPictures, build, tiny_context


def changed_network():
    torch.manual_seed(0)
    network = build(len(LABELS))
    with torch.no_grad():
        network[0].weight.mul_(7)  # the statistics of the layer after it are now wrong
    return network.eval()


def test_statistics_fit_the_changed_weights(tmp_path):
    network = changed_network()
    reestimate_statistics(network, tiny_context(tmp_path))
    inputs = torch.from_numpy(TinyPictures().inputs("train", 0, 48))
    activations = network[0](inputs)
    assert torch.allclose(network[1].running_mean, activations.mean(dim=(0, 2, 3)), atol=1e-4)
    assert torch.allclose(network[1].running_var, activations.var(dim=(0, 2, 3)), rtol=1e-3)


def test_only_statistics_change_and_twice_gives_the_same(tmp_path):
    first, second = changed_network(), changed_network()
    before = {name: value.clone() for name, value in first.named_parameters()}
    momentum = first[1].momentum
    for network in (first, second):
        reestimate_statistics(network, tiny_context(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in first.named_parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert first[1].momentum == momentum
    assert not any(module.training for module in first.modules())


def test_momentum_is_raised_for_the_training_only():
    network = build(len(LABELS))
    network[1].momentum = 0.01
    network[5].momentum = 0.5
    with quick_statistics(network):
        assert (network[1].momentum, network[5].momentum) == (0.1, 0.5)
    assert (network[1].momentum, network[5].momentum) == (0.01, 0.5)
