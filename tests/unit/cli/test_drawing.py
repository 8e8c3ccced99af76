"""Captions drawn below photos: any script, any length, any shape of photo."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
import pytest
from PIL import Image

from capsmith.cli.drawing import MAX_SIDE, MIN_WIDTH, Fonts, draw_captions, save_drawing
from capsmith.cli.photos import Photo
from capsmith.errors import DataError

FONTS = Fonts()


def below(sheet: Image.Image, photo_height: int) -> np.ndarray:
    return np.asarray(sheet.convert("L"))[photo_height:]


@pytest.mark.parametrize(
    "text",
    [
        "A dog runs on the beach.",
        "Übung: «été» naïve – façade",
        "Кошка лежит на траве",
        "קטע עברי עם חתול",
        "قطة تجلس على العشب",
        "बिल्ली घास पर बैठी है",
        "一只猫坐在草地上，" * 30,
        "word " * 20_000,
        "x" * 100_000,
        "a 😀 cat\twith\x1b[31m controls \udcff \u202e",
    ],
)
def test_any_text_is_drawn_within_the_sheet(text: str) -> None:
    photo = Image.new("RGB", (400, 300), "red")
    sheet = draw_captions(photo, [text], FONTS)
    assert sheet.width == 400
    assert sheet.height < 300 + 60 * 40
    ink = below(sheet, 300) < 128
    assert ink.any()
    assert not ink[:, -4:].any()
    assert np.array_equal(np.asarray(sheet)[:300], np.asarray(photo))


def test_longer_text_makes_a_longer_sheet_and_no_text_is_possible() -> None:
    photo = Image.new("RGB", (400, 300))
    heights = [draw_captions(photo, texts, FONTS).height for texts in ([""], ["a"], ["a", "b"])]
    assert heights == sorted(set(heights))
    assert not (below(draw_captions(photo, [""], FONTS), 300) < 255).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (5000, 3000)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    sheet = draw_captions(Image.new("RGB", size, "red"), ["a photo"], FONTS)
    assert MIN_WIDTH <= sheet.width <= MAX_SIDE
    assert sheet.height <= MAX_SIDE + 200


def test_a_font_that_has_the_characters_is_found_where_one_is_installed() -> None:
    _, lacking = FONTS.best_for("plain ASCII", 20)
    assert lacking == ""
    _, lacking = FONTS.best_for("Кошка", 20)
    if lacking:
        pytest.skip("no font with Cyrillic letters is installed")


def test_names_do_not_collide(tmp_path) -> None:
    photo = Photo("p.png", "p.png", PurePath("below/p.png"))
    sheet, taken = Image.new("RGB", (8, 8)), set()
    written = [save_drawing(sheet, tmp_path, photo, taken) for _ in range(3)]
    names = [path.relative_to(tmp_path).as_posix() for path in written]
    assert names == ["below/p.jpg", "below/p-2.jpg", "below/p-3.jpg"]
    for path in written:
        with Image.open(path) as saved:
            assert saved.size == (8, 8)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        save_drawing(sheet, tmp_path / "file", photo, set())
