"""From a picture to the encoder's pixels, as the bundle says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from capsmith.bundle import Preprocessing

_FILTERS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A 1 x 20,000 strip would cover the target with a billion pixels. Beyond this many times the
# target's area only the part that is kept is resized, which may round a value differently.
_MAX_COVER: Final = 16


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Resize and normalise an RGB image of any size: float32 (3, height, width).

    "squash" resizes the whole picture; "crop" resizes it to cover the target, then takes the
    centre, rounded as torchvision rounds.
    """
    size = (preprocessing.width, preprocessing.height)
    resample = _FILTERS[preprocessing.interpolation]
    if preprocessing.resize == "crop":
        resized = _cover(image, size, resample)
    else:
        resized = image.resize(size, resample)
    # One multiply and one add a value, laid out channel by channel as they are written.
    std = np.asarray(preprocessing.std, np.float32)[:, None, None]
    mean = np.asarray(preprocessing.mean, np.float32)[:, None, None]
    pixels = np.empty((3, resized.height, resized.width), np.float32)
    np.multiply(np.asarray(resized).transpose(2, 0, 1), 1 / (255 * std), out=pixels)
    pixels -= mean / std
    return pixels


def _cover(image: Image.Image, target: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Resize to cover `target`, then cut its size out of the centre."""
    (width, height), (target_width, target_height) = image.size, target
    if width * target_height <= height * target_width:
        cover_width, cover_height = target_width, int(target_width * height / width)
    else:
        cover_width, cover_height = int(target_height * width / height), target_height
    left = max(0, round((cover_width - target_width) / 2))
    top = max(0, round((cover_height - target_height) / 2))
    right, bottom = left + target_width, top + target_height
    if cover_width * cover_height <= _MAX_COVER * target_width * target_height:
        return image.resize((cover_width, cover_height), resample).crop((left, top, right, bottom))
    x_scale, y_scale = width / cover_width, height / cover_height
    # Rounding must not push the box past the picture.
    right_edge, bottom_edge = min(right * x_scale, width), min(bottom * y_scale, height)
    box = (left * x_scale, top * y_scale, right_edge, bottom_edge)
    return image.resize(target, resample, box=box)
