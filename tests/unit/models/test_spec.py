"""Descriptions of models refuse values that cannot work, and import no torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from phonefit.models.registry import MODELS
from phonefit.models.spec import Architecture, HeadOptions, Preprocess


def test_an_architecture_has_one_origin() -> None:
    for origin in ({}, {"family": "vgg11", "factory": "a:b"}):
        with pytest.raises(ValidationError, match="give either family or factory"):
            Architecture(**origin, outputs=2, height=32, width_pixels=32)


@pytest.mark.parametrize("change", [{"std": (1, 0, 1)}, {"crop_share": 0.0}, {"height": 4}, {"resize": "pad"}])
def test_preprocessing_that_cannot_work_is_refused(change: dict[str, object]) -> None:
    usual = {"height": 32, "width": 32, "mean": (0, 0, 0), "std": (1, 1, 1)}
    Preprocess.model_validate(usual)
    with pytest.raises(ValidationError):
        Preprocess.model_validate(usual | change)


@pytest.mark.parametrize("change", [{"hidden": (0,)}, {"hidden": (-8,)}, {"dropout": 1.0}])
def test_a_head_that_cannot_work_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HeadOptions.model_validate(change)


def test_the_inputs_of_efficientnet_lite_are_the_published_ones() -> None:
    sizes = [MODELS[f"efficientnet_lite{index}"].preprocess.height for index in range(5)]
    preprocess = MODELS["efficientnet_lite0"].preprocess
    assert sizes == [224, 240, 260, 280, 300]
    assert (preprocess.mean, preprocess.std) == ((127.0,) * 3, (128.0,) * 3)
    assert (preprocess.resize, preprocess.crop_share, preprocess.interpolation) == ("crop", 0.875, "bicubic")


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys; from phonefit.models import registry, checkpoint, module_table; "
        "assert len(registry.MODELS) == 14; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
