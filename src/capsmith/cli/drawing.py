"""Photos with their captions drawn below, in any script and at any length."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, count, islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from capsmith import atomic
from capsmith.cli.output import escape_controls, escape_name
from capsmith.cli.photos import Photo
from capsmith.errors import DataError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MAX_SIDE = 2048
MIN_WIDTH = 320
MAX_LINES = 40
JPEG_QUALITY = 90
PAPER = "white"
INK = "#1a1a1a"
# A noncharacter: every font draws it as the box that stands for what it lacks.
_ABSENT = "\uffff"
_FONT_SUFFIXES = frozenset({".otf", ".ttc", ".ttf"})
_UNUSUAL_STYLES = (
    "bold",
    "italic",
    "oblique",
    "mono",
    "condensed",
    "light",
    "serif",
    "math",
    "emoji",
)


class Fonts:
    """Finds, for a text, the font that has most of its characters.

    Pillow's own font (Latin) comes first, then the machine's, regular styles before others. A
    font that was of use is tried early the next time.
    """

    @cached_property
    def _paths(self) -> list[Path]:
        files = (p for folder in _font_folders() for p in _files_below(folder))
        return sorted((p for p in files if p.suffix.lower() in _FONT_SUFFIXES), key=_style_order)

    def best_for(self, text: str, size: int) -> tuple[Font, str]:
        """The font for `text` at `size` pixels, and the characters that it lacks ("" for none)."""
        best: Font = ImageFont.load_default(size)
        lacking = _lacking(best, text)
        for path in self._paths if lacking else ():
            try:
                font = ImageFont.truetype(path, size)
                missing = _lacking(font, text)
            except OSError:
                continue
            if len(missing) < len(lacking):
                best, lacking, found = font, missing, path
                if not lacking:
                    self._paths.remove(found)
                    self._paths.insert(0, found)
                    break
        return best, lacking


def draw_captions(picture: Image.Image, captions: Sequence[str], fonts: Fonts) -> Image.Image:
    """`picture` (RGB), scaled to at most MAX_SIDE pixels, with one paragraph a caption below it."""
    photo = picture.copy()
    photo.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    width = max(photo.width, MIN_WIDTH)
    size = max(16, width // 24)
    margin = size // 2
    font, _ = fonts.best_for("".join(captions), size)
    wrapped = (_wrapped(escape_controls(text), font, width - 2 * margin) for text in captions)
    lines = list(islice(chain.from_iterable(wrapped), MAX_LINES + 1))
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], "…"]
    line_height = round(size * 1.4)
    sheet = Image.new("RGB", (width, photo.height + len(lines) * line_height + 2 * margin), PAPER)
    sheet.paste(photo, ((width - photo.width) // 2, 0))
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        pen.text((margin, photo.height + margin + row * line_height), line, fill=INK, font=font)
    return sheet


def save_drawing(sheet: Image.Image, folder: Path, photo: Photo, taken: set[Path]) -> Path:
    """Write `sheet` as JPEG into `folder` under the photo's relative name; returns the path.

    Two photos of one name get numbers; `taken` remembers the names of this run. Raises
    `DataError` where the file cannot be written.
    """
    target = _free_name(folder / photo.relative.with_suffix(".jpg"), taken)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.open_file(target) as file:
            sheet.save(file, "JPEG", quality=JPEG_QUALITY)
    except OSError as error:
        raise DataError(
            f"{escape_name(str(target))}: cannot be written: {error.strerror or error};"
            " choose another folder for --draw"
        ) from error
    return target


def _free_name(wanted: Path, taken: set[Path]) -> Path:
    numbered = (wanted.with_stem(f"{wanted.stem}-{number}") for number in count(2))
    path = wanted
    while path in taken:
        path = next(numbered)
    taken.add(path)
    return path


def _wrapped(text: str, font: Font, width: int) -> Iterator[str]:
    """Lines of at most `width` pixels, broken between words, and inside a word that is too wide."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *full, line = _pieces(word, font, width)
        yield from full
    if line:
        yield line


def _pieces(word: str, font: Font, width: int) -> list[str]:
    pieces = [""]
    for character in word:
        # What does not fit on the sheet is not measured: a word may have any length.
        if pieces[-1] and font.getlength(pieces[-1] + character) > width:
            pieces.append("")
            if len(pieces) > MAX_LINES:
                break
        pieces[-1] += character
    return pieces


def _lacking(font: Font, text: str) -> str:
    """The distinct characters of `text` for which `font` draws its box for absent ones."""
    box = _shape(font, _ABSENT)
    visible = sorted({character for character in text if character.isprintable()} - {" "})
    return "".join(c for c in visible if _shape(font, c) == box)


def _shape(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _font_folders() -> tuple[Path, ...]:
    home = Path.home()
    if os.name == "nt":
        return (Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",)
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts")
    return (
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".local/share/fonts",
        home / ".fonts",
    )


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _style_order(path: Path) -> tuple[int, str]:
    name = path.name.lower()
    return sum(style in name for style in _UNUSUAL_STYLES), str(path)
