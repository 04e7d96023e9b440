"""Networks are built by name or by a person's factory, and mistakes are explained."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from phonefit.models.errors import ModelError, UnknownNameError
from phonefit.models.registry import MODELS, build_network, check_network, model_spec
from phonefit.models.spec import Architecture


def own(factory: str, **arguments: object) -> Architecture:
    return Architecture(factory=factory, arguments=arguments, outputs=3, height=32, width_pixels=32)


def test_the_families_are_registered_under_their_own_names() -> None:
    lite = {f"efficientnet_lite{index}" for index in range(5)}
    others = {"mobilenet_v2", "resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "style_net"}
    assert set(MODELS) == lite | others | {"face_resnet", "face_age"}
    assert all(spec.name == name for name, spec in MODELS.items())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError,
        match=r"unknown model 'resnet19'; did you mean 'resnet18'\? known: efficientnet_lite0, .*vgg16",
    ):
        model_spec("resnet19")


def test_an_input_below_the_smallest_is_refused_with_the_limit() -> None:
    with pytest.raises(ModelError, match="at least 32 pixels, got 64x16"):
        build_network(Architecture(family="vgg11", outputs=3, height=64, width_pixels=16))


def test_a_factory_gets_outputs_and_its_arguments() -> None:
    network = build_network(own("tests.tiny:build", channels=8))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert network[0].out_channels == 8


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("tests.tiny", {}, "not of the form"),
        (":build", {}, "not of the form"),
        ("no_such_package.net:build", {}, r"cannot be imported: ModuleNotFoundError.*holds no_such_package"),
        ("tests.tiny:no_such_function", {}, "cannot be imported: AttributeError"),
        ("tests.tiny:build", {"colour": 1}, r"failed with outputs=3 and \{'colour': 1\}: TypeError"),
        ("tests.tiny:tiny_checkpoint", {}, "failed with"),
        ("builtins:dict", {}, r"returned a dict, expected a torch\.nn\.Module"),
    ],
)
def test_a_factory_that_does_not_work_says_why(factory: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_network(own(factory, **arguments))


def test_a_module_that_breaks_on_import_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_on_import.py").write_text("raise RuntimeError('no GPU here')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="RuntimeError: no GPU here"):
        build_network(own("broken_on_import:build"))


class Pair(nn.Module):
    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pictures, pictures


def test_the_output_of_a_network_is_checked_once() -> None:
    good = build_network(own("tests.tiny:build"))
    check_network(good, own("tests.tiny:build"))
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    with pytest.raises(ModelError, match=r"tests\.tiny:build cannot take inputs of 32x32 pixels: RuntimeError"):
        check_network(fixed, own("tests.tiny:build"))
    with pytest.raises(ModelError, match=r"gives \[1, 3, 16, 16\] for one picture of 32x32 pixels, expected \[1, 3\]"):
        check_network(nn.AvgPool2d(2), own("tests.tiny:build"))
    with pytest.raises(ModelError, match="returned a tuple"):
        check_network(Pair(), own("tests.tiny:build"))
