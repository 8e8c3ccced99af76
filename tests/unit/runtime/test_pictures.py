"""Pictures come in upright and RGB from every source, format and mode, or as one clear error."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from capsmith.errors import DownloadError, ImageError
from capsmith.runtime.pictures import PictureLimits, is_address, open_picture, picture_name
from capsmith.runtime.preprocess import to_pixels
from tests.photos import PHOTOS, encoded, photo, pixels

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {"JPEG": {"quality": 95}, "WEBP": {"quality": 95}, "AVIF": {"quality": 95}, "GIF": {}}


# --- sources


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo("cat").save(path)
    want = pixels(photo("cat"))
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as image:
        sources = [path, str(path), data, bytearray(data), file, io.BytesIO(data), image, want]
        sources[-1] = want.astype(np.uint8)
        for source in sources:
            picture = open_picture(source)  # type: ignore[arg-type]
            assert picture.mode == "RGB"
            assert np.array_equal(pixels(picture), want), type(source)


def test_the_callers_image_is_left_alone() -> None:
    image = photo("cat").convert("RGBA")
    image.info["comment"] = "mine"
    before = image.tobytes()
    picture = open_picture(image)
    picture.putpixel((0, 0), (1, 2, 3))
    assert image.tobytes() == before
    assert image.info == {"comment": "mine"}
    assert picture.info == {}


def test_an_address_is_opened_only_by_what_the_caller_passes() -> None:
    asked: list[str] = []

    def open_url(address: str) -> bytes:
        asked.append(address)
        return encoded(photo("cat"), "PNG")

    with pytest.raises(ImageError, match=r"^https://x\.org/cat\.png: .*open_url"):
        open_picture("https://x.org/cat.png")
    picture = open_picture("HTTPS://x.org/cat.png", open_url=open_url)
    assert asked == ["HTTPS://x.org/cat.png"]
    assert picture.size == photo("cat").size
    assert not is_address("https.jpg")
    assert not is_address(Path("https://x.org"))


def test_a_failed_download_is_an_unreadable_picture() -> None:
    def open_url(address: str) -> bytes:
        raise DownloadError(f"{address}: the server answered 404")

    with pytest.raises(ImageError, match="answered 404"):
        open_picture("http://x.org/cat.png", open_url=open_url)


# --- formats


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_are_exact(kind: str) -> None:
    picture = open_picture(encoded(photo("cat"), kind, **LOSSLESS[kind]))
    assert np.array_equal(pixels(picture), pixels(photo("cat")))


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_are_close(kind: str) -> None:
    picture = open_picture(encoded(photo("cat"), kind, **LOSSY[kind]))
    assert np.abs(pixels(picture) - pixels(photo("cat"))).mean() < 5


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    picture = open_picture(encoded(photo("cat"), "TIFF", compression=compression))
    assert np.abs(pixels(picture) - pixels(photo("cat"))).mean() < 5


def test_heic_is_read_with_the_extra_and_asked_for_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "photo.heic"
    image = photo("cat", (96, 64))
    pillow_heif.from_pillow(image).save(path, quality=95)
    assert np.abs(pixels(open_picture(path)) - pixels(image)).mean() < 5
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r'photo\.heic: .*pip install "capsmith\[heif\]"'):
        open_picture(path)


def test_the_first_frame_of_animations() -> None:
    first, second = photo("cat", (64, 48)), photo("coffee", (64, 48))
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        data = encoded(first, kind, save_all=True, append_images=[second])
        picture = open_picture(data)
        assert np.abs(pixels(picture) - pixels(first)).mean() < 10, kind


def test_multi_picture_jpeg_is_a_jpeg() -> None:
    first, second = photo("cat"), photo("coffee")
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert b"MPF\0" in data
    assert np.abs(pixels(open_picture(data)) - pixels(first)).mean() < 5


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "photo.eps"
    path.write_bytes(encoded(photo("cat"), "PNG"))
    assert open_picture(path).size == photo("cat").size


# --- modes and orientation


def test_transparency_lies_on_white() -> None:
    image = photo("cat", (8, 8)).convert("RGBA")
    image.putalpha(0)
    keyed = photo("cat", (8, 8))
    keyed.paste((1, 2, 3), (0, 0, 8, 8))
    palette = keyed.convert("P", palette=Image.Palette.ADAPTIVE)
    sources = {
        "RGBA": encoded(image, "PNG"),
        "LA": encoded(image.convert("LA"), "PNG"),
        "RGB with a key": encoded(keyed, "PNG", transparency=(1, 2, 3)),
        "P with a key": encoded(palette, "PNG", transparency=palette.getpixel((0, 0))),
        "P with alphas": encoded(palette, "PNG", transparency=bytes(256)),
        "WebP": encoded(image, "WEBP", lossless=True),
        "PA": image.convert("P").convert("PA"),
        "RGBa": image.convert("RGBa"),
        "La": image.convert("LA").convert("La"),
    }
    for name, source in sources.items():
        assert (pixels(open_picture(source)) == 255).all(), name


def test_half_transparency_is_mixed_with_white() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    value = pixels(open_picture(encoded(image, "PNG")))[0, 0]
    assert np.abs(value - np.array([227, 177, 127])).max() <= 1


def test_deep_greys() -> None:
    grey = np.asarray(photo("cat").convert("L"))
    want = np.repeat(grey[:, :, None], 3, axis=2)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    sources = [
        encoded(deep, "PNG"),
        encoded(deep, "TIFF"),
        Image.fromarray(grey.astype(np.int32)),
        Image.fromarray(grey.astype(np.int32) * 256),
        Image.fromarray(grey.astype(np.float32)),
        encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"),
    ]
    for source in sources:
        assert np.abs(pixels(open_picture(source)) - want).max() <= 1
    stretched = pixels(open_picture(Image.fromarray(grey.astype(np.float32) * 1e6 - 5e7)))
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert pixels(open_picture(Image.fromarray(np.full((2, 2), np.nan, np.float32)))).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    upright = photo("coffee", (160, 96))
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    turned = upright.transpose(TURNS[undo]) if undo > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
    picture = open_picture(encoded(turned, kind, exif=exif, **options.get(kind, {})))
    assert picture.size == upright.size
    assert np.abs(pixels(picture) - pixels(upright)).mean() < (0.01 if kind[0] in "PTW" else 6)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def test_broken_exif_is_ignored() -> None:
    data = encoded(photo("cat"), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    assert open_picture(data).size == photo("cat").size


# --- scaled decode


def test_large_jpegs_are_decoded_scaled_to_at_least_twice_the_model() -> None:
    data = encoded(photo("galaxies", (2000, 1200)), "JPEG")
    assert open_picture(data, min_side=(224, 224)).size == (1000, 600)
    assert open_picture(data, min_side=(300, 300)).size == (1000, 600)
    assert open_picture(data, min_side=(301, 301)).size == (2000, 1200)
    assert open_picture(data, min_side=(70, 70)).size == (250, 150)
    assert open_picture(data).size == (2000, 1200)
    exact = PictureLimits(exact=True)
    assert open_picture(data, min_side=(70, 70), limits=exact).size == (2000, 1200)


def test_scaled_decode_counts_the_turned_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo("galaxies", (2000, 1200)), "JPEG", exif=exif)
    # Upright it is 1200 x 2000: a tall model must still get twice its height.
    assert open_picture(data, min_side=(100, 400)).size == (600, 1000)
    assert open_picture(data, min_side=(400, 100)).size == (1200, 2000)


@pytest.mark.parametrize("name", PHOTOS)
def test_scaled_decode_hardly_changes_what_the_model_sees(name: str) -> None:
    """At >= 2x the model's size: mean difference below 1/255, one value in 1,000 above 8/255."""
    data = encoded(photo(name, (1800, 1500)), "JPEG", quality=92)
    scaled = open_picture(data, min_side=SQUARE.size)
    exact = open_picture(data, min_side=SQUARE.size, limits=PictureLimits(exact=True))
    assert scaled.size < exact.size
    difference = 255 * np.abs(to_pixels(scaled, SQUARE) - to_pixels(exact, SQUARE))
    assert difference.mean() < 1
    assert (difference > 8).mean() < 1e-3


class SQUARE:
    size = (260, 260)
    width = height = 260
    resize = "squash"
    interpolation = "bicubic"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)


# --- limits


def test_limits_on_bytes(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo("cat").save(path)
    limits = PictureLimits(max_bytes=path.stat().st_size)
    smaller = PictureLimits(max_bytes=path.stat().st_size - 1)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        open_picture(source, limits=limits)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(ImageError, match="MB"):
            open_picture(source, limits=smaller)


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "AVIF", "GIF"])
def test_limits_on_pixels(kind: str) -> None:
    data = encoded(photo("cat", (120, 100)), kind)
    open_picture(data, limits=PictureLimits(max_pixels=12_000))
    with pytest.raises(ImageError, match="120 x 100 pixels"):
        open_picture(data, limits=PictureLimits(max_pixels=11_999))


def test_limits_on_images_and_arrays() -> None:
    limits = PictureLimits(max_pixels=11_999)
    image = photo("cat", (120, 100))
    for source in (image, np.asarray(image)):
        with pytest.raises(ImageError, match="120 x 100 pixels"):
            open_picture(source, limits=limits)


def test_phone_photos_of_200_million_pixels_are_read_scaled() -> None:
    data = encoded(Image.new("L", (16_320, 12_240), 90), "JPEG")
    picture = open_picture(data, min_side=(260, 260))
    assert picture.size == (2040, 1530)
    assert picture.getpixel((9, 9)) == (90, 90, 90)
    for limits, min_side in ((PictureLimits(exact=True), (260, 260)), (PictureLimits(), None)):
        with pytest.raises(ImageError, match="16320 x 12240 pixels, more than 100 million"):
            open_picture(data, min_side=min_side, limits=limits)


# --- errors


def test_each_unreadable_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    good = encoded(photo("cat"), "JPEG")
    contents = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"this is not a picture\n" * 9, "not a picture"),
        "cut.jpg": (good[: len(good) // 2], "broken or cut short"),
        "line\nbreak.jpg": (b"", "empty"),
        "bell\x1b[31m.jpg": (b"", "empty"),
    }
    for name, (content, reason) in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = _message(path)
        assert reason in message
        assert message.startswith(str(tmp_path))
    assert "no such file" in _message(tmp_path / "none.jpg")
    assert "no such file" in _message(tmp_path / "cut.jpg" / "none.jpg")
    assert "directory" in _message(tmp_path)
    assert "cannot be read" in _message("a\0b.jpg")
    assert "cannot be read" in _message("a" * 5000)
    assert "cannot be read" in _message(io.StringIO("text"))


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(photo("cat"), "JPEG"))
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        assert "no permission" in _message(path)
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_of_other_shapes_and_types(array: np.ndarray) -> None:
    assert "uint8" in _message(array)


def test_other_objects() -> None:
    for source in (None, 5, ["a.jpg"], Image.new("RGB", (0, 4))):
        assert _message(source)


def test_names_of_sources(tmp_path: Path) -> None:
    path = tmp_path / "фото 写真.jpg"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        assert picture_name(file) == str(path)
    assert picture_name(path) == str(path)
    assert picture_name(os.fsdecode(b"a\xff\t.jpg")) == r"a\udcff\t.jpg"
    assert picture_name(b"abc") == "<3 bytes>"


def _message(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_picture(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.isprintable(), message
    return message


# --- Pillow for other users of the process


def _tiff_that_warns() -> bytes:
    data = encoded(photo("cat", (32, 32)), "TIFF")
    tags = ImageFileDirectory_v2()
    tags[270] = "x" * 50
    at = data.index((273).to_bytes(2, "little"))
    # A date of 4 GB: the plugin skips the tag and warns.
    broken = (306).to_bytes(2, "little") + b"\x02\x00" + b"\xff\xff\xff\xf0" + b"\x08\0\0\0"
    count_at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[count_at : count_at + 2], "little")
    end = count_at + 2 + 12 * count
    assert at < end
    directory = data[count_at + 2 : end] + broken
    moved = (count + 1).to_bytes(2, "little") + directory + bytes(4)
    return data[:4] + len(data).to_bytes(4, "little") + data[8:] + moved


def test_pillows_warnings_are_silent_here_and_kept_elsewhere() -> None:
    data = _tiff_that_warns()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert open_picture(data).size == (32, 32)
        assert heard == []
        threads = [threading.Thread(target=open_picture, args=(data,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        for thread in threads:
            thread.join()
        assert heard
        assert all("ImagePlugin" in warning.filename for warning in heard)


def test_pillows_settings_are_neither_needed_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    data, size = encoded(photo("cat"), "JPEG"), photo("cat").size
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_picture(data).size == size
    with pytest.raises(ImageError):
        open_picture(data[:-500])
    assert Image.MAX_IMAGE_PIXELS == 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_threads_read_the_same_pixels() -> None:
    data = [encoded(photo(name, (400, 300)), "JPEG") for name in PHOTOS]
    alone = [open_picture(photo_).tobytes() for photo_ in data]
    together: dict[int, list[bytes]] = {}

    def read(which: int) -> None:
        together[which] = [open_picture(photo_).tobytes() for photo_ in data]

    threads = [threading.Thread(target=read, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[which] for which in range(8)] == [alone] * 8
