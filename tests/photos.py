"""Freely licensed photos, read from the wheels of scikit-image and scikit-learn."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def _folder(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    assert spec is not None, f"the tests need {package}: pip install -e '.[dev]'"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], *parts)


_SKIMAGE = _folder("skimage", "data")
_SKLEARN = _folder("sklearn", "datasets", "images")

PHOTOS = {
    "astronaut": _SKIMAGE / "astronaut.png",
    "cat": _SKIMAGE / "chelsea.png",
    "coffee": _SKIMAGE / "coffee.png",
    "rocket": _SKIMAGE / "rocket.jpg",
    "motorcycle": _SKIMAGE / "motorcycle_left.png",
    "galaxies": _SKIMAGE / "hubble_deep_field.jpg",
    "temple": _SKLEARN / "china.jpg",
    "flower": _SKLEARN / "flower.jpg",
}


def photo(name: str, size: tuple[int, int] | None = None) -> Image.Image:
    """One of `PHOTOS` as a fresh RGB image, resized to (width, height) where given."""
    with Image.open(PHOTOS[name]) as file:
        image = file.convert("RGB")
    image.info = {}
    return image.resize(size) if size else image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of `image` saved by Pillow in format `kind`."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels(image: Image.Image) -> NDArray[np.int16]:
    """RGB values as int16 (height, width, 3), so that differences do not wrap around."""
    return np.asarray(image, np.int16)
