"""The picture formats that are read: told by their first bytes, opened by one plugin each.

Pillow's plugins are made directly, not through `PIL.Image.open`: parsers of other formats are
never reached, and Pillow's process-wide settings (`MAX_IMAGE_PIXELS`, `LOAD_TRUNCATED_IMAGES`,
registered plugins) are neither needed nor changed.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, cast

from PIL.ImageFile import ImageFile

from capsmith.errors import ImageError

FORMATS: Final = ("JPEG", "PNG", "WebP", "AVIF", "GIF", "BMP", "TIFF", "HEIC")
"""The formats that are read; HEIC with the `heif` extra."""

_PLUGINS: Final = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}
_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_HEIC_BRANDS: Final = frozenset(
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"]
)
_AVIF_BRANDS: Final = frozenset([b"avif", b"avis"])

# What a parser may read before the pixels. Camera and editor metadata stay far below; files made
# to exhaust a parser do not.
_MAX_METADATA_BYTES: Final = 12_000_000
_MAX_METADATA_READS: Final = 20_000


def sniff(data: bytes, name: str) -> str:
    """The format of an encoded file, one of `FORMATS`; `ImageError` for anything else."""
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        # Major brand, then (after a version) the compatible ones, as far as the box goes.
        box = data[8 : min(int.from_bytes(data[:4]), 256)]
        brands = {box[i : i + 4] for i in range(0, len(box), 4) if i != 4}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    raise ImageError(f"{name}: not a picture in a format that is read here ({', '.join(FORMATS)})")


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the header of a WebP file; (0, 0) where it is broken."""
    chunk, head = data[12:16], data[16:30].ljust(14, b"\0")
    if chunk == b"VP8X":
        return int.from_bytes(head[8:11], "little") + 1, int.from_bytes(head[11:14], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(head[5:9], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = int.from_bytes(head[10:12], "little"), int.from_bytes(head[12:14], "little")
    return width & 0x3FFF, height & 0x3FFF


def is_png_bounded(data: bytes) -> bool:
    """Whether a PNG's chunks are few enough, and those without pixels small enough."""
    position, chunks, metadata_bytes = 8, 0, 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] != b"IDAT":
            metadata_bytes += size
        position += 12 + size
        chunks += 1
        if chunks > _MAX_METADATA_READS or (
            metadata_bytes > _MAX_METADATA_BYTES and position <= len(data)
        ):
            return False
    return True


class _Reader(io.BytesIO):
    """An encoded file in memory that stops a parser lost in metadata."""

    def __init__(self, data: bytes, name: str, max_metadata_bytes: int) -> None:
        super().__init__(data)
        self._name = name
        self.is_metadata = True
        self._bytes_left = max_metadata_bytes
        self._reads_left = _MAX_METADATA_READS

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if self.is_metadata:
            self._bytes_left -= len(content)
            self._reads_left -= 1
            if self._bytes_left < 0 or self._reads_left < 0:
                raise _too_much_metadata(self._name)
        return content


def _too_much_metadata(name: str) -> ImageError:
    return ImageError(f"{name}: too much metadata for a picture: save it without")


def open_file(data: bytes, kind: str, name: str) -> ImageFile:
    """Run the plugin of format `kind` over a file's header; no pixel is decoded yet.

    Raises `ImageError` where the plugin is not installed or the metadata is endless, and whatever
    Pillow raises for broken data.
    """
    if kind == "PNG" and not is_png_bounded(data):
        raise _too_much_metadata(name)
    module, plugin = _PLUGINS[kind]
    try:
        opener = getattr(import_module(module), plugin)
    except ImportError as error:
        raise ImageError(
            f'{name}: {kind} pictures need the extra "heif": pip install "capsmith[heif]"'
        ) from error
    # WebP, AVIF and HEIC are read whole when opened; the TIFF plugin bounds its tags itself.
    is_whole = kind in ("WebP", "AVIF", "HEIC", "TIFF")
    reader = _Reader(data, name, 2 * len(data) if is_whole else _MAX_METADATA_BYTES)
    image = cast(ImageFile, opener(reader))
    reader.is_metadata = False
    return image


class _PillowHere(threading.local):
    """A module pattern for `warnings` that matches Pillow, in threads that decode a picture here.

    `warnings.catch_warnings` swaps the filters of the whole process, which is neither safe in
    threads nor fair to a caller who wants Pillow's warnings elsewhere.
    """

    is_decoding = False

    def match(self, module: str) -> bool:
        return self.is_decoding and module.partition(".")[0] in ("PIL", "pillow_heif")


_HERE: Final = _PillowHere()
_QUIET: Final[Any] = ("ignore", None, Warning, _HERE, 0)


@contextmanager
def pillow_errors(name: str, kind: str) -> Iterator[None]:
    """Run Pillow silently; whatever its parsers raise becomes one `ImageError`."""
    rules = cast("list[Any]", warnings.filters)
    if not rules or rules[0] is not _QUIET:
        with suppress(ValueError):
            rules.remove(_QUIET)
        rules.insert(0, _QUIET)
    _HERE.is_decoding = True
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode this picture") from error
    except Exception as error:  # hostile bytes make the parsers raise nearly anything
        raise ImageError(f"{name}: the {kind} data is broken or cut short") from error
    finally:
        _HERE.is_decoding = False
