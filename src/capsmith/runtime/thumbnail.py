"""Small previews of pictures, which notebooks show beside captions."""

from __future__ import annotations

import io
import sys

from PIL import Image

_SIDE = 224
_QUALITY = 80


def is_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    return "ipykernel" in sys.modules


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of at most 224 pixels a side, without metadata."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
