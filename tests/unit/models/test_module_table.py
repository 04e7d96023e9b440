"""A checkpoint records changed leaves, and refuses what it could not rebuild."""

import copy
import json

import pytest
import torch
from torch import nn

from phonefit.models.errors import ModelError
from phonefit.models.module_table import ModuleEntry, apply_module_table, module_table


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.ReLU6(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.PReLU(8)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def through_json(table: dict[str, ModuleEntry]) -> dict[str, ModuleEntry]:
    text = json.dumps({path: entry.as_json() for path, entry in table.items()})
    return {path: ModuleEntry.model_validate(entry) for path, entry in json.loads(text).items()}


def rebuilt(network: nn.Module) -> nn.Module:
    fresh = small()
    apply_module_table(fresh, through_json(module_table(network, small())))
    fresh.load_state_dict(network.state_dict())
    return fresh.eval()


def test_an_unchanged_network_needs_no_rows() -> None:
    assert module_table(small(), small()) == {}


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("0", nn.Conv2d(3, 8, (5, 3), stride=(2, 2), padding=(2, 1), bias=True)),
        ("0", nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")),
        ("0", nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, stride=2, padding=1), nn.Conv2d(2, 8, 1))),
        ("1", nn.Identity()),
        ("1", nn.BatchNorm2d(8, eps=0.1, momentum=None)),
        ("3.0", nn.Conv2d(8, 8, 3, padding="same", dilation=2)),
        ("3.1", nn.PReLU(1)),
        ("6", nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 4))),
    ],
)
def test_a_replaced_leaf_is_rebuilt_and_computes_the_same(path: str, layer: nn.Module) -> None:
    network = small()
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, copy.deepcopy(layer))
    network.eval()
    pictures = torch.rand(2, 3, 16, 16)
    assert list(module_table(network, small())) == [path]
    assert torch.equal(rebuilt(network)(pictures), network(pictures))


def test_pruned_channels_and_groups_are_recorded() -> None:
    network = small()
    network[0] = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    network[1] = nn.BatchNorm2d(4, eps=1e-3)
    network[3] = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.PReLU(4))
    network[6] = nn.Linear(4, 4)
    network.eval()
    pictures = torch.rand(2, 3, 16, 16)
    assert list(module_table(network, small())) == ["0", "1", "3.0", "3.1", "6"]
    assert torch.equal(rebuilt(network)(pictures), network(pictures))


class Conv2d(nn.Conv2d):
    """A person's class with the name of torch's: rebuilding it as torch's would change what it computes."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * 2


class Scaled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))


@pytest.mark.parametrize(
    ("changed", "fresh", "message"),
    [
        (nn.Sequential(Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(3, 8, 1)), "module 0 is a Conv2d"),
        (nn.Sequential(nn.ELU()), nn.Sequential(nn.ReLU()), "module 0 is a ELU"),
        (nn.Sequential(Scaled(4)), nn.Sequential(Scaled(8)), r"module 0, a Scaled, has tensors"),
        (nn.Sequential(nn.ReLU(), nn.ReLU()), nn.Sequential(nn.ReLU()), "children"),
        (
            nn.Sequential(nn.ModuleDict({"a": nn.Linear(2, 2)})),
            nn.Sequential(nn.ModuleDict({"b": nn.Linear(2, 2)})),
            r"module 0 has children \['a'\]",
        ),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_when_saving(changed: nn.Module, fresh: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        module_table(changed, fresh)


@pytest.mark.parametrize(
    ("path", "entry", "message"),
    [
        ("0", {"class_name": "Lambda"}, "allowed: Conv2d"),
        ("0", {"class_name": "Module"}, "allowed: Conv2d"),
        ("0", {"class_name": "Linear", "arguments": {"in_features": -1, "out_features": 2}}, "cannot be built"),
        ("0", {"class_name": "Linear", "arguments": {"colour": 1}}, "cannot be built"),
        ("9.weight", {"class_name": "Identity"}, "does not have"),
    ],
)
def test_a_table_from_a_file_builds_listed_classes_only(path: str, entry: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        apply_module_table(small(), {path: ModuleEntry.model_validate(entry)})
