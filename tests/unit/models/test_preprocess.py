"""From any picture to the model's input."""

import numpy as np
import pytest
from PIL import Image

from phonefit.models.data.preprocess import apply, normalise, region, to_rgb
from phonefit.models.errors import DataError
from phonefit.models.spec import Preprocess

MEAN, STD = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


def settings(**changes):
    return Preprocess(**({"height": 16, "width": 16, "mean": MEAN, "std": STD} | changes))


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_mode_becomes_8_bit_rgb_of_the_asked_size(mode, resize):
    pixels = apply(Image.new(mode, (50, 30)), settings(height=16, width=24, resize=resize))
    assert pixels.shape == (16, 24, 3)
    assert pixels.dtype == np.uint8


def test_transparency_becomes_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 10, 20))
    rgb = np.asarray(to_rgb(image))
    assert (rgb[:, :10] == (255, 0, 0)).all()
    assert (rgb[:, 10:] == 255).all()


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.info["transparency"] = 1
    assert (np.asarray(to_rgb(image)) == 255).all()


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    assert np.asarray(to_rgb(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(mode):
    with pytest.raises(DataError, match=rf"mode {mode}.*8 or 16 bits"):
        to_rgb(Image.new(mode, (4, 4)))


def test_exif_orientation_is_honoured_once(tmp_path):
    picture = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise by 90 degrees to see it upright
    picture.save(tmp_path / "phone.png", exif=exif)
    upright = to_rgb(Image.open(tmp_path / "phone.png"))
    expected = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
    assert (np.asarray(upright) == expected).all()
    assert (np.asarray(to_rgb(upright)) == expected).all()


@pytest.mark.parametrize("size", [(300, 200), (90, 333), (16, 16), (7, 5)])
@pytest.mark.parametrize("target", [(16, 16), (17, 40)])
def test_crop_is_the_centre_of_the_picture_with_its_shorter_side_resized(size, target):
    height, width = target
    image = noise(*size)
    scale = max(round(width / 0.875) / size[0], round(height / 0.875) / size[1])
    scaled = [max(round(side * scale), round(least / 0.875)) for side, least in zip(size, (width, height), strict=True)]
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    whole = image.resize(scaled, Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + width, top + height)))
    difference = np.abs(apply(image, settings(height=height, width=width)).astype(int) - expected)
    assert difference.max() <= 1  # Pillow rounds its weights to integers


def test_stretch_shows_the_whole_picture_and_crop_does_not():
    image = Image.new("RGB", (100, 100), "blue")
    image.paste((255, 0, 0), (0, 0, 3, 100))
    assert apply(image, settings(resize="stretch"))[:, 0, 0].min() > 50
    assert apply(image, settings(resize="crop"))[:, :, 0].max() == 0


def test_a_very_long_picture_is_cropped_without_scaling_all_of_it():
    assert apply(Image.new("L", (1, 60_000)), settings(height=256, width=256)).shape == (256, 256, 3)


def test_interpolation_matters():
    image = noise(100, 100)
    assert (apply(image, settings()) != apply(image, settings(interpolation="bicubic"))).any()


def test_normalise_subtracts_mean_and_divides_by_std_of_each_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    values = normalise(pixels, settings())
    assert values.shape == (5, 3, 4, 6)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    for channel in range(3):
        expected = (pixels[..., channel].astype(np.float64) - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(values[:, channel], expected, rtol=1e-6)


def test_normalise_leaves_the_pixels_alone():
    pixels = np.full((1, 8, 8, 3), 7, dtype=np.uint8)
    normalise(pixels, settings())
    assert (pixels == 7).all()


@pytest.mark.parametrize(
    ("width", "height", "place"), [(40, 20, (0, 4, 16, 8)), (20, 40, (4, 0, 8, 16)), (1000, 1, (0, 7, 16, 1))]
)
def test_letterbox_shows_the_whole_picture_on_grey(width, height, place):
    left, top, shown_width, shown_height = place
    picture = noise(width, height)
    pixels = apply(picture, settings(resize="letterbox", padding=7)).copy()
    whole = np.asarray(picture.resize((shown_width, shown_height), Image.Resampling.BILINEAR))
    assert (pixels[top : top + shown_height, left : left + shown_width] == whole).all()
    pixels[top : top + shown_height, left : left + shown_width] = 7
    assert (pixels == 7).all()


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("size", [(50, 30), (30, 50), (7, 300)])
def test_the_region_is_what_the_input_shows(resize, size):
    """A white point of the picture comes out where the region says."""
    width, height = size
    image = Image.new("RGB", size)
    x, y = width // 2, height // 2
    image.paste((255, 255, 255), (x, y, x + 1, y + 1))
    preprocess = settings(height=24, width=16, resize=resize, padding=0)
    left, top, right, bottom = region(width, height, preprocess)
    seen = apply(image, preprocess)[:, :, 0].astype(float)
    rows, columns = np.indices(seen.shape) + 0.5
    middle = (columns * seen).sum() / seen.sum(), (rows * seen).sum() / seen.sum()
    expected = (x + 0.5 - left) / (right - left) * 16, (y + 0.5 - top) / (bottom - top) * 24
    assert middle == pytest.approx(expected, abs=0.5)


def test_padding_is_written_for_letterbox_alone():
    """Without it, files and digests are those from before there was a letterbox."""
    assert "padding" not in settings(resize="crop").as_json()
    boxed = settings(resize="letterbox", padding=9)
    assert Preprocess.model_validate(boxed.as_json()) == boxed
