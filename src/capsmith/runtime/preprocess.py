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


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Resize and normalise an RGB image of any size: float32 (3, height, width).

    "squash" resizes the whole picture; "crop" resizes it to cover the target, then takes the
    centre, rounded as torchvision rounds.
    """
    size = (preprocessing.width, preprocessing.height)
    box = _centre_box(image.size, size) if preprocessing.resize == "crop" else None
    resized = image.resize(size, _FILTERS[preprocessing.interpolation], box=box)
    # One multiply and one add a value, laid out channel by channel as they are written.
    std = np.asarray(preprocessing.std, np.float32)
    scale = 1 / (255 * std)
    shift = -np.asarray(preprocessing.mean, np.float32) / std
    values = np.asarray(resized).transpose(2, 0, 1)
    return np.ascontiguousarray(
        values * scale[:, None, None] + shift[:, None, None], dtype=np.float32
    )


def _centre_box(
    source: tuple[int, int], target: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The part of the source that "resize to cover, then centre crop" keeps.

    Resizing that part alone gives the same pixels and never makes the covering picture, which for
    a 1 x 20,000 strip would have a billion pixels.
    """
    (width, height), (target_width, target_height) = source, target
    if width * target_height <= height * target_width:
        cover_width, cover_height = target_width, int(target_width * height / width)
    else:
        cover_width, cover_height = int(target_height * width / height), target_height
    cover_width, cover_height = max(cover_width, target_width), max(cover_height, target_height)
    left = round((cover_width - target_width) / 2)
    top = round((cover_height - target_height) / 2)
    x_scale, y_scale = width / cover_width, height / cover_height
    return (
        left * x_scale,
        top * y_scale,
        min((left + target_width) * x_scale, width),
        min((top + target_height) * y_scale, height),
    )
