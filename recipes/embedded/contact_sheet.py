"""Make the documentation's contact sheet: captions good and bad, as they come.

    python recipes/embedded/contact_sheet.py BUNDLE DATA DOCS

Writes `DOCS/contact-sheet.jpg` (24 COCO photos whose licence allows it) and
`DOCS/contact-sheet.md` (the captions, credits, and a table of 24 Flickr8k photos as text). Which
photos is settled by `random.Random(0).sample` over the sorted file names, nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

import capsmith
import photos
from capsmith.atomic import write_bytes

PHOTOS = 24
# Attribution, attribution-share-alike, no known copyright restrictions.
LICENCES = (4, 5, 7)
MAX_BYTES = 400_000

_COLUMNS = 4
_TILE = (240, 180)
_TEXT_HEIGHT, _GAP, _FONT_SIZE, _LINE_CHARACTERS = 66, 8, 14, 34

_PAGE = """\
# Contact sheet

What the embedded captioner says about photos that it was not trained on, good and bad, as they
come. Nobody chose them: they are `random.Random(0).sample` of the sorted file names.

![24 photos, each with its caption; the captions are listed below](contact-sheet.jpg)

The photos are from the COCO data set, made smaller; they belong to people on Flickr, who allow this
under the licences named here. Each name links to the original.

{coco}

## Flickr8k, in words

Photos of the validation split, which may not be shown here: the caption beside what five people
wrote.

{flickr8k}
"""

Captioned = tuple[str, Image.Image, str]


def sampled(names: list[str]) -> list[str]:
    """24 of the names, by the fixed rule."""
    return random.Random(0).sample(sorted(names), PHOTOS)


def captioned(
    captioner: capsmith.Captioner, data: Path, name: str, wanted: list[str]
) -> list[Captioned]:
    """(file name, picture, caption) of the wanted photos, in their order."""
    pictures = {photo: picture for photo, picture in photos.photos(data, name) if photo in wanted}
    captions = captioner.caption_many([pictures[photo] for photo in wanted])
    return [
        (photo, pictures[photo], caption.text)
        for photo, caption in zip(wanted, captions, strict=True)
    ]


def sheet(rows: list[Captioned]) -> Image.Image:
    """All photos in a grid, whole and undistorted, each with its number and caption below."""
    width, height = _TILE[0] + _GAP, _TILE[1] + _TEXT_HEIGHT
    lines = -(-len(rows) // _COLUMNS)
    canvas = Image.new("RGB", (_COLUMNS * width + _GAP, lines * height + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, (_, picture, caption) in enumerate(rows):
        left = _GAP + number % _COLUMNS * width
        top = _GAP + number // _COLUMNS * height
        tile = ImageOps.contain(picture, _TILE)
        canvas.paste(tile, (left + (_TILE[0] - tile.width) // 2, top + _TILE[1] - tile.height))
        text = textwrap.fill(f"{number + 1}. {caption}", _LINE_CHARACTERS, max_lines=3)
        draw.multiline_text((left, top + _TILE[1] + 4), text, fill="black", font=font, spacing=3)
    return canvas


def jpeg(picture: Image.Image) -> bytes:
    """The best JPEG of at most MAX_BYTES."""
    for quality in range(85, 20, -5):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= MAX_BYTES:
            return stream.getvalue()
    raise SystemExit(f"the contact sheet does not fit {MAX_BYTES} bytes: make its tiles smaller")


def cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def coco_page(rows: list[Captioned], index: dict[str, Any]) -> list[str]:
    """Captions, credits and licences of the photos on the sheet."""
    images = {image["file_name"]: image for image in index["images"]}
    licences = {licence["id"]: licence for licence in index["licenses"]}
    lines = ["| | caption | photo | licence |", "| --- | --- | --- | --- |"]
    for number, (photo, _, caption) in enumerate(rows, start=1):
        image = images[photo]
        licence = licences[image["license"]]
        credit = f"[{Path(photo).stem}]({image['flickr_url']})"
        terms = f"[{licence['name']}]({licence['url']})"
        lines.append(f"| {number} | {cell(caption)} | {credit} | {terms} |")
    return lines


def flickr8k_page(rows: list[Captioned], references: dict[str, list[str]]) -> list[str]:
    """Captions beside the references that people wrote."""
    lines = ["| photo | caption | references |", "| --- | --- | --- |"]
    for photo, _, caption in rows:
        written = "<br>".join(cell(line) for line in references[photo])
        lines.append(f"| `{photo}` | {cell(caption)} | {written} |")
    return lines


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("docs", type=Path)
    options = parser.parse_args()
    captioner = capsmith.load(options.bundle)
    index = json.loads((options.data / "coco" / "captions.json").read_text(encoding="utf-8"))
    allowed = [i["file_name"] for i in index["images"] if i["license"] in LICENCES]
    coco = captioned(captioner, options.data, "val-coco", sampled(allowed))
    references = photos.captions(options.data, "val-flickr8k")
    flickr8k = captioned(captioner, options.data, "val-flickr8k", sampled(list(references)))
    text = _PAGE.format(
        coco="\n".join(coco_page(coco, index)),
        flickr8k="\n".join(flickr8k_page(flickr8k, references)),
    )
    write_bytes(options.docs / "contact-sheet.jpg", jpeg(sheet(coco)))
    write_bytes(options.docs / "contact-sheet.md", text.encode())


if __name__ == "__main__":
    main()
