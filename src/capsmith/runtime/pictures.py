"""Open anything that holds a picture as an upright RGB image, within limits.

The format is told by the first bytes, never by the name; size is checked before any pixel is
decoded; large JPEGs are decoded scaled down.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from capsmith.errors import CapsmithError, ImageError
from capsmith.runtime.formats import open_file, pillow_errors, sniff, webp_size
from capsmith.runtime.rgb import orientation_of, upright_rgb

Picture = str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | NDArray[np.generic]
"""What a picture may come as: a path, an encoded file's bytes or an open binary file, a Pillow
image, or a uint8 array (height, width, 3) of RGB values."""

# Every scan of a progressive JPEG visits every coefficient: a photo has about ten scans, a small
# hostile file thousands.
_MAX_SCANNED_PIXELS: Final = 25_000_000_000
# Asking libjpeg for this many times the size that the model sees leaves the pixels after the
# resize nearly as they were; the tests hold how nearly.
_DRAFT_FACTOR: Final = 2


class NamedBytes(bytes):
    """The bytes of a picture, and what messages call it: `NamedBytes(content, name)`."""

    name: str

    def __new__(cls, content: bytes, name: str) -> NamedBytes:
        made = super().__new__(cls, content)
        made.name = name
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """What a picture may cost.

    `max_pixels_scaled` holds for JPEGs that are decoded at 1/2, 1/4 or 1/8 because the model is
    small, `max_pixels` for everything else. `exact` switches scaled decoding off: slower, pixels
    independent of the model's size.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 100_000_000
    max_pixels_scaled: int = 250_000_000
    exact: bool = False


def open_picture(
    source: Picture,
    *,
    min_side: tuple[int, int] | None = None,
    limits: PictureLimits | None = None,
    open_url: Callable[[str], bytes] | None = None,
) -> Image.Image:
    """Decode `source` to an upright RGB image, transparency on white, first frame.

    `min_side` is the (width, height) that the model sees: JPEGs of at least twice that size are
    decoded scaled down, never below twice that size. An address (http or https) is fetched with
    `open_url`, and refused where there is none. Embedded colour profiles are ignored.

    Raises `ImageError`, one line that names the picture.
    """
    limits = limits or PictureLimits()
    name = picture_name(source)
    if isinstance(source, Image.Image):
        return _from_image(source, name, limits)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, limits)
    data = _read(source, name, limits.max_bytes, open_url)
    kind = sniff(data, name)
    if kind == "WebP":
        # The decoder allocates its canvas as soon as it is made.
        _check_pixels(webp_size(data), name, limits.max_pixels)
    with pillow_errors(name, kind):
        return _decode(open_file(data, kind, name), data, name, min_side, limits)


def picture_name(source: Picture) -> str:
    """How messages call a picture: its path or address on one line, else what it came as."""
    name: str | bytes
    match source:
        case bytes() | bytearray():
            name = source.name if isinstance(source, NamedBytes) else f"<{len(source)} bytes>"
        case Image.Image():
            name = getattr(source, "filename", "") or "<image>"
        case np.ndarray():
            name = "<array>"
        case str() | os.PathLike():
            name = os.fspath(source)
        case _:
            name = getattr(source, "name", None) or "<file>"
    name = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def is_address(source: Picture) -> bool:
    """Whether `source` is an http or https address rather than a file."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def _read(
    source: Picture, name: str, max_bytes: int, open_url: Callable[[str], bytes] | None
) -> bytes:
    if isinstance(source, bytes | bytearray):
        data = bytes(source)
    elif is_address(source):
        data = _fetch(cast(str, source), name, open_url)
    elif isinstance(source, str | os.PathLike):
        data = _read_path(source, name, max_bytes)
    elif hasattr(source, "read"):
        data = _read_stream(cast(BinaryIO, source), name, max_bytes)
    else:
        raise ImageError(
            f"{name}: a picture is a path, bytes, an open binary file, a PIL image or an array,"
            f" not {type(source).__name__}"
        )
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if len(data) > max_bytes:
        raise _too_many_bytes(name, max_bytes)
    return data


def _fetch(address: str, name: str, open_url: Callable[[str], bytes] | None) -> bytes:
    if open_url is None:
        raise ImageError(
            f"{name}: addresses are opened only when allowed: pass"
            " open_url=capsmith.fetch.picture, or --allow-urls on the command line"
        )
    try:
        return open_url(address)
    except CapsmithError as error:
        raise ImageError(str(error)) from error


def _read_path(path: str | os.PathLike[str], name: str, max_bytes: int) -> bytes:
    try:
        if Path(path).is_dir():
            raise ImageError(f"{name}: this is a directory, not a picture")
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise _too_many_bytes(name, max_bytes)
            return _read_stream(file, name, max_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{name}: no such file") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read this file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise ImageError(f"{name}: cannot be read: {reason}") from error


def _read_stream(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    # In pieces: a pipe has no size, and an endless one must stop at the limit.
    content = io.BytesIO()
    try:
        while content.tell() <= max_bytes and (piece := stream.read(1 << 20)):
            content.write(piece)
    except (OSError, ValueError, TypeError) as error:
        raise ImageError(f"{name}: cannot be read as an open binary file: {error}") from error
    return content.getvalue()


def _too_many_bytes(name: str, max_bytes: int) -> ImageError:
    return ImageError(
        f"{name}: larger than {max_bytes / 1e6:g} MB: make it smaller or raise max_bytes"
    )


def _decode(
    image: ImageFile,
    data: bytes,
    name: str,
    min_side: tuple[int, int] | None,
    limits: PictureLimits,
) -> Image.Image:
    size, max_pixels = image.size, limits.max_pixels
    # TIFF's loader turns the picture itself; PNG's orientation may stand behind the pixels.
    orientation = 1
    if isinstance(image, JpegImageFile):
        orientation = orientation_of(image)
        if min_side and not limits.exact:
            width, height = min_side[::-1] if orientation >= 5 else min_side
            image.draft(None, (_DRAFT_FACTOR * width, _DRAFT_FACTOR * height))
        if image.size != size:
            max_pixels = limits.max_pixels_scaled
        if image.info.get("progressive"):
            _check_pixels(size, name, max_pixels)
            if data.count(b"\xff\xda") * size[0] * size[1] > _MAX_SCANNED_PIXELS:
                raise ImageError(f"{name}: this progressive JPEG has too many scans to decode")
    _check_pixels(size, name, max_pixels)
    image.load()
    if not isinstance(image, JpegImageFile):
        orientation = orientation_of(image)
    return upright_rgb(image, orientation)


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise ImageError(
            f"{name}: {size[0]} x {size[1]} pixels, more than {max_pixels / 1e6:g} million:"
            " make it smaller or raise the limit"
        )


def _from_image(image: Image.Image, name: str, limits: PictureLimits) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: the image has no pixels")
    _check_pixels(image.size, name, limits.max_pixels)
    with pillow_errors(name, "PIL"):
        image.load()
        return upright_rgb(image, orientation_of(image))


def _from_array(array: NDArray[np.generic], name: str, limits: PictureLimits) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"{name}: an array must be uint8 of shape (height, width, 3),"
            f" not {array.dtype} {array.shape}"
        )
    _check_pixels((array.shape[1], array.shape[0]), name, limits.max_pixels)
    return Image.fromarray(array)
