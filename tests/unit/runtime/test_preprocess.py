"""Pixels are what the two-step recipes of the encoders' authors give."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from capsmith.bundle import Preprocessing
from capsmith.runtime.preprocess import to_pixels
from tests.photos import PHOTOS, photo

MEAN, STD = (0.481, 0.457, 0.408), (0.268, 0.261, 0.275)
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def preprocessing(**changes: object) -> Preprocessing:
    fields = {
        "width": 224,
        "height": 224,
        "resize": "squash",
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
    }
    return Preprocessing(**{**fields, **changes})  # type: ignore[arg-type]


def normalised(image: Image.Image) -> np.ndarray:
    values = np.asarray(image, np.float64) / 255
    return ((values - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_squash(interpolation: str) -> None:
    image = photo("rocket")
    pixels = to_pixels(image, preprocessing(interpolation=interpolation, width=260, height=200))
    assert pixels.shape == (3, 200, 260)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    want = normalised(image.resize((260, 200), FILTERS[interpolation]))
    np.testing.assert_allclose(pixels, want, atol=2e-6)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", PHOTOS)
def test_crop_equals_resize_then_crop(name: str, turned: bool) -> None:
    """The short side to 224, then the centre: as torchvision does it, step by step."""
    image = photo(name)
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
    width, height = image.size
    short = min(width, height)
    cover = image.resize((int(224 * width / short), int(224 * height / short)), FILTERS["bicubic"])
    left = round((cover.width - 224) / 2)
    top = round((cover.height - 224) / 2)
    want = normalised(cover.crop((left, top, left + 224, top + 224)))
    np.testing.assert_allclose(to_pixels(image, preprocessing(resize="crop")), want, atol=2e-6)


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3), (3000, 17), (224, 224)])
def test_any_shape(size: tuple[int, int], resize: str) -> None:
    pixels = to_pixels(Image.new("RGB", size, (255, 0, 128)), preprocessing(resize=resize))
    want = normalised(Image.new("RGB", (224, 224), (255, 0, 128)))
    np.testing.assert_allclose(pixels, want, atol=2e-6)


def test_crop_to_a_rectangle_keeps_the_shape_of_things() -> None:
    image = Image.new("RGB", (600, 600))
    image.paste((255, 255, 255), (150, 150, 450, 450))
    pixels = to_pixels(
        image, preprocessing(resize="crop", width=300, height=200, mean=(0, 0, 0), std=(1, 1, 1))
    )
    assert pixels.shape == (3, 200, 300)
    white = pixels[0] > 0.5
    assert (white.any(axis=1).sum(), white.any(axis=0).sum()) == (150, 150)
