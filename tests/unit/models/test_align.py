"""Alignment by landmarks."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from phonefit.models.data.align import SIZE, TEMPLATE, aligned, cropped, similarity
from phonefit.models.errors import DataError


def moved(points, degrees, scale, shift):
    """Turned by so many degrees, scaled, shifted."""
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return points @ turn.T + shift


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 2.5), (-170, 0.2)])
def test_a_similarity_is_found_again(degrees, scale):
    points = moved(TEMPLATE, degrees, scale, (40, -7))
    matrix = similarity(points, TEMPLATE)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_it_is_the_nearest_one_and_never_mirrors():
    random = np.random.default_rng(0)
    points = TEMPLATE + random.normal(0, 4, TEMPLATE.shape)

    def error(matrix):
        return float(((points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum())

    best = similarity(points, TEMPLATE)
    turn = np.array([[0, -1], [1, 0]])
    for step in (0.01, -0.01):
        for change in (np.eye(2), turn):
            assert error(best + step * np.column_stack([change @ best[:, :2], [0, 0]])) > error(best)
        assert error(best + np.array([[0, 0, step], [0, 0, 0]])) > error(best)
    mirrored = TEMPLATE * [-1, 1]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (25, 1.7), (-40, 6), (90, 0.8)])
def test_the_landmarks_of_a_picture_come_to_their_places(degrees, scale):
    points = moved(TEMPLATE, degrees, scale, (0, 0))
    points += 20 - points.min(axis=0)
    image = Image.new("RGB", tuple(int(value) + 30 for value in points.max(axis=0)))
    for index, (x, y) in enumerate(points):
        radius = 4 * scale
        colour = tuple(255 if bit else 0 for bit in ((index + 1) & 1, (index + 1) & 2, (index + 1) & 4))
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    face = np.asarray(aligned(image, points)).astype(np.int64)
    assert face.shape == (SIZE, SIZE, 3)
    for index, (x, y) in enumerate(TEMPLATE):
        wanted = [255 if bit else 0 for bit in ((index + 1) & 1, (index + 1) & 2, (index + 1) & 4)]
        near = np.abs(face - wanted).sum(axis=2) < 120
        rows, columns = np.nonzero(
            near & (np.hypot(*(np.indices(near.shape)[::-1] - np.array([x, y])[:, None, None])) < 8)
        )
        np.testing.assert_allclose([columns.mean(), rows.mean()], [x, y], atol=1.0)


def test_another_size_is_the_same_face():
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).resize((200, 200))
    points = moved(TEMPLATE, 10, 1.2, (20, 20))
    small, large = (aligned(image, points, size) for size in (56, 224))
    difference = np.asarray(large.resize((56, 56), Image.Resampling.BOX)).astype(float) - np.asarray(small)
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("points", [TEMPLATE[:3], np.full((5, 2), 3.0), np.full((5, 2), np.nan)])
def test_landmarks_that_say_nothing_are_refused(points):
    with pytest.raises(DataError, match="landmarks are"):
        aligned(Image.new("RGB", (50, 50)), points)


def test_a_crop_must_lie_within():
    image = Image.new("RGB", (60, 40))
    assert cropped(image, (10, 0, 60, 40)).size == (50, 40)
    for box in ((10, 0, 61, 40), (-1, 0, 5, 5), (5, 5, 5, 9)):
        with pytest.raises(DataError, match="not within 60x40"):
            cropped(image, box)
