"""The photos that the embedded captioner is trained on and measured on, by set.

Sets: `flickr8k` (train and extra), `coco`, `coco1` (one caption a photo), `pascal`; held out:
`val-flickr8k`, `val-coco`, `val-pascal` (those of `pascal-val.txt`: the first five by name of each
category; the first five captions of each).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from PIL import Image

from capsmith.data.manifest import Photo
from capsmith.data.sources import DataSource, read_data
from capsmith.runtime.pictures import open_picture

TRAIN = ("flickr8k", "coco", "coco1", "pascal")
VALIDATION = ("val-flickr8k", "val-coco", "val-pascal")
_REFERENCES = 5

_FLICKR8K = DataSource(
    path="flickr8k/captions.txt", splits={"val": "flickr8k/Flickr_8k.devImages.txt"}
)
_PASCAL = DataSource(
    path="pascal/captions.csv",
    name="pascal",
    splits={"val": str(Path(__file__).with_name("pascal-val.txt"))},
)
_SOURCES = {
    "flickr8k": _FLICKR8K,
    "coco": DataSource(path="coco/train_captions.json", name="coco"),
    "coco1": DataSource(path="coco/one_caption.csv", name="coco1"),
    "pascal": _PASCAL,
    "val-flickr8k": _FLICKR8K,
    "val-coco": DataSource(path="coco/captions.json", split="val"),
    "val-pascal": _PASCAL,
}


@cache
def read_set(data: Path, name: str) -> tuple[Photo, ...]:
    """The photos of a set, in the order of its captions; `data` is the folder of all sets."""
    split = "val" if name in VALIDATION else ""
    found = read_data([_SOURCES[name]], base=data.resolve()).of_split(split).photos
    if name != "val-pascal":
        return found
    return tuple(replace(photo, captions=photo.captions[:_REFERENCES]) for photo in found)


def captions(data: Path, name: str) -> dict[str, list[str]]:
    """Photo's id -> captions of one set."""
    return {photo.id: list(photo.texts()) for photo in read_set(data, name)}


def photos(data: Path, name: str) -> Iterator[tuple[str, Image.Image]]:
    """(id, RGB picture) of every photo of a set."""
    for photo in read_set(data, name):
        yield photo.id, open_picture(photo.source.picture())
