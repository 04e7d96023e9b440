"""Parts that the data sources share."""

import io

import numpy as np
import pytest
from PIL import Image

from phonefit.models.data.picture import open_picture, picture_digest
from phonefit.models.data.source import balanced_shares, map_in_threads
from phonefit.models.errors import DataError


@pytest.mark.parametrize(
    ("available", "total", "shares"),
    [
        ((10, 10), 6, (3, 3)),
        ((10, 10, 10), 7, (3, 2, 2)),
        ((1, 10, 10), 9, (1, 4, 4)),
        ((0, 5), 4, (0, 4)),
        ((2, 3), 100, (2, 3)),
        ((3, 3), 0, (0, 0)),
    ],
)
def test_shares_are_as_equal_as_the_classes_allow(available, total, shares):
    assert balanced_shares(available, total) == shares


@pytest.mark.parametrize("seed", range(20))
def test_a_class_gets_less_than_another_only_when_it_has_no_more(seed):
    random = np.random.default_rng(seed)
    available = random.integers(0, 30, 6).tolist()
    total = int(random.integers(0, 200))
    shares = balanced_shares(available, total)
    assert sum(shares) == min(total, sum(available))
    for share, count in zip(shares, available, strict=True):
        assert share <= count
        assert share >= max(shares) - 1 or share == count


def test_results_come_in_the_order_of_the_items():
    assert list(map_in_threads(lambda number: number * 2, range(10), chunk=3)) == list(range(0, 20, 2))


def test_a_picture_that_may_not_be_read_says_so():
    class Locked(io.BytesIO):
        def read(self, size=-1):
            raise PermissionError(13, "Permission denied")

    with pytest.raises(DataError, match="no permission to read it"):
        open_picture(Locked())


def test_the_digest_knows_the_size():
    assert picture_digest(Image.new("RGB", (2, 8))) != picture_digest(Image.new("RGB", (4, 4)))
