"""The photos and captions that the embedded captioner is trained on, read from their tars.

Sets: `flickr8k` (train and extra), `coco`, `coco1` (one caption a photo), `pascal`; held out:
`val-flickr8k`, `val-coco`, `val-pascal` (the first five photos by name of each category).
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

TRAIN = ("flickr8k", "coco", "coco1", "pascal")
VALIDATION = ("val-flickr8k", "val-coco", "val-pascal")
HELD_OUT_A_CATEGORY = 5

_TARS = {
    "flickr8k": ["flickr8k/train-0*.tar", "flickr8k/extra.tar"],
    "coco": ["coco/train.tar"],
    "coco1": ["coco/one_caption.tar"],
    "pascal": ["pascal/train.tar"],
    "val-flickr8k": ["flickr8k/val.tar"],
    "val-coco": ["coco/images.tar"],
    "val-pascal": ["pascal/train.tar"],
}


def captions(data: Path, name: str) -> dict[str, list[str]]:
    """File name -> captions of one set, in the order of its caption file."""
    if name in ("coco", "val-coco"):
        file = data / "coco" / ("train_captions.json" if name == "coco" else "captions.json")
        return _coco_captions(file)
    if name == "coco1":
        return _csv_captions(data / "coco" / "one_caption.csv")
    if name in ("pascal", "val-pascal"):
        return _pascal_captions(data / "pascal", held_out=name == "val-pascal")
    lists = ["devImages"] if name == "val-flickr8k" else ["trainImages", "extra"]
    every = _csv_captions(data / "flickr8k" / "captions.txt")
    wanted: list[str] = []
    for which in lists:
        file_name = "extraImages.txt" if which == "extra" else f"Flickr_8k.{which}.txt"
        wanted += (data / "flickr8k" / file_name).read_text().split()
    return {photo: every[photo] for photo in wanted}


def _coco_captions(file: Path) -> dict[str, list[str]]:
    content = json.loads(file.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for row in content["annotations"]:
        found[names[row["image_id"]]].append(row["caption"])
    return found


def _csv_captions(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["image"], []).append(row["caption"])
    return found


def _pascal_captions(folder: Path, held_out: bool) -> dict[str, list[str]]:
    categories: dict[str, list[str]] = {}
    for name, category in sorted(json.loads((folder / "categories.json").read_text()).items()):
        categories.setdefault(category, []).append(name)
    kept = {name for names in categories.values() for name in names[:HELD_OUT_A_CATEGORY]}
    every = _csv_captions(folder / "captions.csv")
    if held_out:
        return {name: every[name][:5] for name in sorted(kept)}
    return {name: lines for name, lines in every.items() if name not in kept}


def photos(data: Path, name: str) -> Iterator[tuple[str, Image.Image]]:
    """(file name, RGB picture) of every captioned photo of a set, in the order of its tars."""
    wanted = captions(data, name)
    for pattern in _TARS[name]:
        for path in sorted(data.glob(pattern)):
            with tarfile.open(path) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() else None
                    if stream is None or member.name not in wanted:
                        continue
                    yield member.name, Image.open(io.BytesIO(stream.read())).convert("RGB")
