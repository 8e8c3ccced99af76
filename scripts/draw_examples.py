"""Make the README's picture: the example photos, each with the caption that capsmith gives it.

python scripts/draw_examples.py [--model BUNDLE] [--into docs/images/examples.jpg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

import capsmith
from capsmith.cli.drawing import Fonts, draw_captions

ROOT = Path(__file__).parents[1]
COLUMNS = 4
TILE_WIDTH, PHOTO_HEIGHT, GAP = 360, 270, 16


def tile(photo: Path, text: str, fonts: Fonts) -> Image.Image:
    """The photo, cut to one shape for all, with its caption below."""
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    scale = max(TILE_WIDTH / picture.width, PHOTO_HEIGHT / picture.height)
    width, height = round(picture.width * scale), round(picture.height * scale)
    # More is cut below than above: that is where heads are.
    left, top = (width - TILE_WIDTH) // 2, (height - PHOTO_HEIGHT) // 5
    resized = picture.resize((width, height), Image.Resampling.LANCZOS)
    cut = resized.crop((left, top, left + TILE_WIDTH, top + PHOTO_HEIGHT))
    return draw_captions(cut, [text], fonts)


def sheet(tiles: list[Image.Image]) -> Image.Image:
    """All tiles in rows of COLUMNS, on white."""
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = COLUMNS * TILE_WIDTH + (COLUMNS - 1) * GAP
    whole = Image.new("RGB", (width, sum(heights) + (len(rows) - 1) * GAP), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, placed in enumerate(row):
            whole.paste(placed, (column * (TILE_WIDTH + GAP), top))
        top += height + GAP
    return whole


def main() -> None:
    """Caption all photos of examples/ and save the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "images" / "examples.jpg")
    options = parser.parse_args()
    photos = sorted((ROOT / "examples").glob("*.jpg"))
    captions = capsmith.load(options.model).caption_many(photos)
    fonts = Fonts()
    tiles = [tile(p, caption.text, fonts) for p, caption in zip(photos, captions, strict=True)]
    options.into.parent.mkdir(parents=True, exist_ok=True)
    sheet(tiles).save(options.into, quality=85, optimize=True)


if __name__ == "__main__":
    main()
