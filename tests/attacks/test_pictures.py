"""Hostile pictures are refused with a typed error, quickly and in little memory."""

from __future__ import annotations

import gzip
import json
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capsmith.errors import ImageError
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.preprocess import to_pixels
from tests.photos import PHOTOS, encoded, photo, pixels

MODEL_SIDE = (260, 260)


# --- broken files


def truncated() -> Iterator[tuple[str, bytes]]:
    """63 files: JPEG, PNG and WebP cut at 20 points each, half a GIF, nothing, and text."""
    image = photo("cat", (200, 150))
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(image, kind)
        for twentieth in range(20):
            yield f"{kind}-{twentieth}.jpg", data[: 12 + (len(data) - 12) * twentieth // 20]
    gif = encoded(image, "GIF")
    yield "half.gif", gif[: len(gif) // 2]
    yield "empty.jpg", b""
    yield "text.jpg", b"GIF, JPEG and PNG are formats.\n" * 99


def test_broken_files(tmp_path: Path) -> None:
    files = list(truncated())
    assert len(files) == 63
    for name, content in files:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError) as caught:
            open_picture(tmp_path / name, min_side=MODEL_SIDE)
        message = str(caught.value)
        assert name in message
        assert message.isprintable()


# --- bombs


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4)
    return len(content).to_bytes(4) + kind + content + checksum


def png(width: int, height: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A grey PNG of true size up to 100 x 100; larger ones promise pixels that they lack."""
    rows = zlib.compress(bytes((min(width, 100) + 1) * min(height, 100)))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = before + png_chunk(b"IDAT", rows) + after
    return b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b"")


def jpeg_with(segments: bytes) -> bytes:
    data = encoded(photo("cat", (64, 64)), "JPEG")
    return data[:2] + segments + data[2:]


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo("cat", (64, 64)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans() -> bytes:
    data = bytearray(encoded(photo("cat", (64, 64)), "JPEG", progressive=True))
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", 9000, 9000)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:last]) + bytes(data[last:-2]) * 2000 + b"\xff\xd9"


def overlapping_tags(count: int, size: int, padding: int) -> bytes:
    """A TIFF directory whose `count` tags all claim the same `size` bytes."""
    tags = b"".join(struct.pack("<HHLL", 40_000 + i % 25_000, 7, size, 8) for i in range(count))
    directory = struct.pack("<H", count) + tags + bytes(4)
    return b"II*\0" + struct.pack("<L", 8 + padding) + bytes(padding) + directory


def gif_of_many_frames() -> bytes:
    data = encoded(Image.new("L", (32, 32)), "GIF")
    frame = data[data.index(b",") : -1]
    return data[:-1] + frame * 9_999 + b";"


def avif_of_size(width: int, height: int) -> bytes:
    data = encoded(photo("cat", (64, 64)), "AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def webp_canvas(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo("cat", (64, 64)).convert("RGBA"), "WEBP", exif=b"Exif\0\0x"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


ZEROS = zlib.compress(bytes(50_000_000))
MEGABYTE = zlib.compress(bytes(1_000_000))
BOMBS: dict[str, Callable[[], bytes]] = {
    "png-50k": lambda: png(50_000, 50_000),
    "png-profile": lambda: png(9, 9, png_chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "png-texts": lambda: png(9, 9, png_chunk(b"zTXt", b"a\0\0" + MEGABYTE) * 5_000),
    "png-text": lambda: png(9, 9, png_chunk(b"zTXt", b"a\0\0" + ZEROS)),
    "png-text-behind": lambda: png(9, 9, after=png_chunk(b"tEXt", b"a\0" + bytes(40_000_000))),
    "png-chunks": lambda: png(9, 9, png_chunk(b"IDAT", b"") * 1_000_000),
    "jpeg-exif": lambda: jpeg_with(jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 600),
    "jpeg-profile": lambda: jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000)) * 600),
    "jpeg-comments": lambda: jpeg_with(jpeg_segment(0xFE, bytes(65_000)) * 600),
    "jpeg-junk": lambda: jpeg_with(b"\xff\0" * 10_000_000),
    "jpeg-65k": lambda: jpeg_of_size(65_500, 65_500),
    "jpeg-scans": jpeg_of_many_scans,
    "gif-65k": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;",
    "gif-comments": lambda: b"GIF89a\x09\0\x09\0\0\0\0!\xfe" + (b"\xff" + bytes(255)) * 100_000,
    "webp-16k": lambda: webp_canvas(16_384, 16_384),
    "avif-60k": lambda: avif_of_size(60_000, 60_000),
    "tiff-tags": lambda: overlapping_tags(60_000, 9**7, 9**7),
    "bmp-50k": lambda: (
        b"BM" + struct.pack("<LLLLiiHH", 99, 0, 54, 40, 50_000, 50_000, 1, 24) + bytes(99)
    ),
    "gzip-in-gzip": lambda: gzip.compress(gzip.compress(bytes(50_000_000), 1), 1, mtime=0),
}
HARMLESS: dict[str, Callable[[], bytes]] = {
    "gif-frames": gif_of_many_frames,
    "png-exif": lambda: png(9, 9, png_chunk(b"eXIf", overlapping_tags(60_000, 9**7, 9**7))),
    "jpeg-tags": lambda: jpeg_with(
        jpeg_segment(0xE1, b"Exif\0\0" + overlapping_tags(2_700, 32_000, 32_000))
    ),
}

MEASURE = """
import json, sys, time
from pathlib import Path
from capsmith.errors import ImageError
from capsmith.runtime.pictures import open_picture

def peak():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

for path in sys.argv[1:]:
    began, result = time.process_time(), "opened"
    try:
        open_picture(path, min_side=(260, 260))
    except ImageError as error:
        result = str(error)
    print(json.dumps([Path(path).stem, result, time.process_time() - began, peak()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its peak memory from /proc")
def test_bombs(tmp_path: Path) -> None:
    """Each in under one second of computing and 200 MB, Python and the file included."""
    paths = []
    for name, make in {**BOMBS, **HARMLESS}.items():
        paths.append(tmp_path / f"{name}.jpg")
        paths[-1].write_bytes(make())
    lines = _python(MEASURE, *map(str, paths))
    results = [json.loads(line) for line in lines]
    assert [name for name, *_ in results] == [*BOMBS, *HARMLESS]
    for name, result, seconds, peak_bytes in results:
        assert (result == "opened") == (name in HARMLESS), (name, result)
        assert seconds < 1, (name, seconds)
        assert peak_bytes < 200e6, (name, peak_bytes)


def _python(code: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


# --- formats off the allow-list

SAVED_OFF_LIST = ("EPS", "PDF", "ICO", "TGA", "JPEG2000", "PCX", "PPM", "SGI", "DDS", "DIB", "QOI")
MADE_OFF_LIST = {
    "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(400),
    "FITS": b"SIMPLE  =                    T".ljust(2880) + bytes(2880),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "XBM": b"#define im_width 8\n#define im_height 8\nstatic char im_bits[] = {0,0,0,0,0,0,0,0};",
}
LOADED = """
import sys
from capsmith.errors import ImageError
from capsmith.runtime.pictures import open_picture

for path in sys.argv[1:]:
    try:
        open_picture(path)
        print("opened", path)
    except ImageError as error:
        assert "format" in str(error), error
print(*sorted(name[4:-11] for name in sys.modules if name.endswith("ImagePlugin")))
"""


def test_formats_off_the_list_never_reach_their_parser(tmp_path: Path) -> None:
    image = photo("cat", (64, 64))
    contents = {kind: encoded(image, kind) for kind in SAVED_OFF_LIST} | MADE_OFF_LIST
    assert len(contents) == 15
    for kind, content in contents.items():
        (tmp_path / f"{kind}.jpg").write_bytes(content)
    lines = _python(LOADED, *map(str, sorted(tmp_path.iterdir())))
    assert len(lines) == 1, lines
    # JPEG is imported to know its class, TIFF by it; every other plugin when its format is met.
    assert set(lines[0].split()) <= {"Jpeg", "Tiff"}


# --- random damage


def seeds() -> list[bytes]:
    """50 small photos in all the formats of the base install."""
    sizes = [(64, 48), (33, 57)]
    options = [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + overlapping_tags(3, 4, 20)}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {}),
        ("AVIF", {}),
        ("WEBP", {"lossless": True}),
    ]
    names = list(PHOTOS)
    return [
        encoded(photo(names[i % len(names)], sizes[i % 2]), kind, **settings)
        for i in range(5)
        for kind, settings in options
    ]


@pytest.mark.ci
@pytest.mark.parametrize("flips", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_flipped_bytes(flips: int) -> None:
    chance, files, opened = random.Random(0), seeds(), 0
    assert len(files) == 50
    for turn in range(flips):
        content = bytearray(files[turn % len(files)])
        content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        with suppress(ImageError):
            assert open_picture(bytes(content), min_side=(16, 16)).mode == "RGB"
            opened += 1
    assert opened > flips // 4


# --- turns and modes

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_turned_photos_are_the_upright_photo(orientation: int) -> None:
    upright, turn = photo("coffee", (150, 100)), TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = upright if turn is None else upright.transpose(turn)
    assert np.array_equal(pixels(open_picture(encoded(turned, "PNG", exif=exif))), pixels(upright))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1", "YCbCr"])
def test_modes_are_their_rgb(mode: str) -> None:
    grey = photo("coffee", (150, 100)).convert("L")
    image, want = {
        "L": (grey, grey.convert("RGB")),
        "LA": (grey.convert("LA"), grey.convert("RGB")),
        "P": (
            photo("coffee", (150, 100)).quantize(256),
            photo("coffee", (150, 100)).quantize(256).convert("RGB"),
        ),
        "RGBA": (photo("coffee", (150, 100)).convert("RGBA"), photo("coffee", (150, 100))),
        "CMYK": (photo("coffee", (150, 100)).convert("CMYK"), photo("coffee", (150, 100))),
        "I;16": (
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
            grey.convert("RGB"),
        ),
        "1": (grey.convert("1"), grey.convert("1").convert("RGB")),
        "YCbCr": (photo("coffee", (150, 100)).convert("YCbCr"), photo("coffee", (150, 100))),
    }[mode]
    assert image.mode == mode
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    difference = np.abs(pixels(open_picture(encoded(image, kind))) - pixels(want))
    assert difference.max() <= (3 if mode == "YCbCr" else 0)


# --- extreme shapes


class Pixels:
    width = height = 260
    resize = "squash"
    interpolation = "bicubic"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 20_000), (20_000, 1), (2, 2), (1, 2), (60_000, 3), (3, 60_000), (9_999, 10)],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes(size: tuple[int, int], kind: str) -> None:
    picture = open_picture(encoded(Image.new("RGB", size, (250, 9, 9)), kind), min_side=MODEL_SIDE)
    assert picture.size == size
    values = to_pixels(picture, Pixels)
    assert values.shape == (3, 260, 260)
    assert values[0].min() > 0.9
    assert values[1].max() < -0.8


# --- metadata


def test_metadata_does_not_leave_the_file(tmp_path: Path) -> None:
    text = "<script>alert(1)</script>\n=cmd|' /C calc'!A0"
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x013B, 0x8298):
        exif[tag] = text
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        data = encoded(photo("cat", (64, 64)), kind, exif=exif, xmp=text.encode())
        assert open_picture(data).info == {}
        path = tmp_path / f"photo.{kind}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ImageError) as caught:
            open_picture(path)
        assert "script" not in str(caught.value)
