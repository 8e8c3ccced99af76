"""Any Pillow image as upright RGB on white."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where there is none or it cannot be read."""
    # Broken metadata is no reason to refuse whole pixels.
    with suppress(Exception):
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        if value in _UPRIGHT:
            return int(value)
    return 1


def upright_rgb(image: Image.Image, orientation: int) -> Image.Image:
    """A new RGB image, turned upright, transparency on white, without metadata.

    16-bit greys keep their high byte; 32-bit and float greys outside 0..65535 are stretched from
    their lowest to their highest value. Embedded colour profiles are ignored.
    """
    picture = _to_rgb(image)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    picture.info = {}
    return picture


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image from any mode that the formats can have."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_grey_bytes(np.asarray(image, np.float64))).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _grey_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        scale = 255 / (high - low)
        values = values - low
    elif high > 255:
        scale = 1 / 256
    else:
        scale = 255.0 if high <= 1 else 1.0
    return np.clip(values * scale, 0, 255).astype(np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return cast(Image.Image, converted)
