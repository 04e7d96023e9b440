"""Figures of parity, and the verdict on them."""

from dataclasses import replace

import numpy as np
import pytest

from phonefit.models.tasks import task
from phonefit.pipeline.convert.parity import check_parity, parity, parity_samples
from phonefit.pipeline.errors import ConversionError, ParityError
from phonefit.pipeline.recipe import ParityConfig
from phonefit.pipeline.result import Parity
from tests.tiny import LABELS, TinyPictures, tiny_context

TASK = task("classification")
REFERENCE = np.array([[3.0, -1.0], [-2.0, 2.0], [0.5, 1.5], [4.0, 0.0]], dtype=np.float32)


def test_equal_outputs_have_no_noise():
    assert parity(REFERENCE, REFERENCE.copy(), TASK, ".pte int8") == Parity(
        samples=4, cosine=1.0, snr_db=None, agreement=1.0
    )


def test_figures_of_known_noise():
    converted = REFERENCE.copy()
    converted[2] = (1.5, 0.5)  # turns the decision; noise energy 2, signal energy 36.5
    figures = parity(REFERENCE, converted, TASK, ".pte int8")
    assert figures.agreement == 0.75
    assert figures.snr_db == pytest.approx(10 * np.log10(36.5 / 2))
    assert figures.cosine == pytest.approx(35.5 / 36.5)


def test_scaling_shows_in_the_noise_not_in_the_cosine():
    figures = parity(REFERENCE, REFERENCE * 2, TASK, ".pte int8")
    assert figures.cosine == pytest.approx(1.0)
    assert figures.snr_db == pytest.approx(0.0)


def test_turned_signs_have_a_cosine_of_minus_one():
    assert parity(REFERENCE, -REFERENCE, TASK, ".pte int8").cosine == pytest.approx(-1.0)


def test_a_file_that_always_gives_zero_is_not_alike():
    assert parity(REFERENCE, np.zeros_like(REFERENCE), TASK, ".pte int8").cosine == 0.0


def test_values_that_are_not_finite_are_refused():
    converted = REFERENCE.copy()
    converted[1, 0] = np.nan
    with pytest.raises(ParityError, match=r"\.pte int8: 1 of 4 samples"):
        parity(REFERENCE, converted, TASK, ".pte int8")


@pytest.mark.parametrize("converted", [REFERENCE[:, :1], REFERENCE[:2], REFERENCE[0]])
def test_outputs_of_another_shape_are_refused(converted):
    with pytest.raises(ParityError, match=r"\.pte int8: .*samples, outputs"):
        parity(REFERENCE, converted, TASK, ".pte int8")


def test_limits_that_are_met_pass():
    check_parity(Parity(samples=4, cosine=0.99, snr_db=20, agreement=1), ParityConfig(), ".pte int8")
    check_parity(Parity(samples=4, cosine=1, snr_db=None, agreement=1), ParityConfig(snr_db=90), ".pte fp32")


def test_a_miss_names_the_file_the_figure_the_value_and_the_limit():
    limits = ParityConfig(cosine=0.98, snr_db=10, agreement=0.9)
    with pytest.raises(ParityError) as caught:
        check_parity(Parity(samples=32, cosine=-0.006, snr_db=-3.1, agreement=0.95), limits, ".tflite int8")
    message = str(caught.value)
    assert ".tflite int8" in message
    assert "cosine -0.006 is below the limit 0.98" in message
    assert "snr_db -3.1 dB is below the limit 10 dB" in message
    assert "agreement" not in message
    assert "convert.parity" in message  # what to do
    assert isinstance(caught.value, ConversionError) and caught.value.exit_code == 1


class SortedPictures(TinyPictures):
    """As prepared data is: the rows of a side are sorted by class."""

    def __init__(self, per_side):
        super().__init__(per_side)
        for side, (pixels, targets) in self._sides.items():
            order = np.argsort(targets, kind="stable")
            self._sides[side] = pixels[order], targets[order]


@pytest.mark.parametrize("count", [3, 8, 32])
def test_samples_of_a_side_that_is_sorted_by_class_are_of_all_classes(tmp_path, count):
    data = SortedPictures(per_side=96)
    samples = parity_samples(replace(tiny_context(tmp_path), data=data), count)
    assert samples.shape[0] == count and samples.dtype == np.float32
    assert len(np.unique(samples, axis=0)) == count
    brightest = samples.mean(axis=(2, 3)).argmax(axis=1)  # a picture's strongest channel is its class
    assert np.bincount(brightest, minlength=len(LABELS)).min() >= count // len(LABELS) - 1
    assert set(brightest) == set(range(len(LABELS)))


def test_a_side_smaller_than_asked_is_taken_whole(tmp_path):
    context = replace(tiny_context(tmp_path), data=TinyPictures(per_side=5))
    assert np.array_equal(parity_samples(context, 32), context.data.inputs("validation", 0, 5))
