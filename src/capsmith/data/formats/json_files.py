"""Captions in one JSON file: COCO's, Karpathy's and the original ClipCap's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from capsmith.data.rows import Finding, OnFinding, Place, Row
from capsmith.data.text_files import READ_ERRORS, open_binary, unreadable
from capsmith.errors import DataError

_OFFICIAL = re.compile(r"captions_(train|val|test)\d{4}\.json")


def load(path: Path) -> Any:
    """The content of a JSON file; raises `DataError`, which names the line."""
    try:
        with open_binary(path) as file:
            return json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}); correct it or fetch it again"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start + 1} is not UTF-8; save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply; fetch it again") from None
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def recognise(content: object) -> str | None:
    """The name of the format that a JSON file's content has, if it has one."""
    match content:
        case {"images": list(), "annotations": list()}:
            return "coco"
        case {"images": [{"sentences": list()}, *_]}:
            return "karpathy"
        case [{"image_id": _, "caption": str()}, *_]:
            return "clipcap"
    return None


def coco(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """COCO's `captions_*.json`: images by id, annotations with captions.

    Files that have COCO's own names (`captions_val2014.json`) are the split they are called.
    """
    content = load(path)
    split = match[1] if (match := _OFFICIAL.fullmatch(path.name)) else ""
    names: dict[object, str] = {}
    for index, image in _entries(content, "images", path, on_finding):
        name = image.get("file_name")
        if not isinstance(name, str) or not isinstance(image.get("id"), int | str):
            _complain(path, f"images[{index}]", "has no id or no file_name", on_finding)
        elif names.setdefault(image["id"], name) != name:
            _complain(path, f"images[{index}]", "has the id of an image before it", on_finding)
    for index, entry in _entries(content, "annotations", path, on_finding):
        where, key, text = f"annotations[{index}]", entry.get("image_id"), entry.get("caption")
        if not isinstance(text, str) or not isinstance(key, int | str):
            _complain(path, where, "has no caption or no image_id", on_finding)
        elif key not in names:
            _complain(path, where, f"names image {key!r}, which is not in images", on_finding)
        else:
            yield Row(photo=names[key], text=text, place=Place(path, entry=where), split=split)


def karpathy(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """Karpathy's `dataset_*.json`, with its splits; "restval" is training data."""
    for index, image in _entries(load(path), "images", path, on_finding):
        name, split = image.get("filename"), image.get("split", "")
        if not isinstance(name, str) or not isinstance(split, str):
            _complain(path, f"images[{index}]", "has no filename", on_finding)
            continue
        folder = image.get("filepath")
        photo = f"{folder}/{name}" if isinstance(folder, str) else name
        split = "train" if split == "restval" else split
        for place, text in _sentences(image, index, path, on_finding):
            yield Row(photo=photo, text=text, place=place, split=split)


def clipcap(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """The original ClipCap's list: one `{"image_id": 522418, "id": 0, "caption": "..."}` each."""
    for index, entry in _entries({"": load(path)}, "", path, on_finding):
        key, text = entry.get("image_id"), entry.get("caption")
        if not isinstance(text, str) or not isinstance(key, int | str):
            _complain(path, f"[{index}]", "has no caption or no image_id", on_finding)
        else:
            yield Row(photo=str(key), text=text, place=Place(path, entry=f"[{index}]"))


def _sentences(
    image: Mapping[str, Any], index: int, path: Path, on_finding: OnFinding
) -> Iterator[tuple[Place, str]]:
    prefix = f"images[{index}].sentences"
    sentences = image.get("sentences")
    if not isinstance(sentences, list):
        _complain(path, prefix, "is missing", on_finding)
        return
    for number, sentence in enumerate(sentences):
        text = sentence.get("raw") if isinstance(sentence, dict) else None
        if isinstance(text, str):
            yield Place(path, entry=f"{prefix}[{number}]"), text
        else:
            _complain(path, f"{prefix}[{number}]", 'has no "raw"', on_finding)


def _entries(
    content: object, name: str, path: Path, on_finding: OnFinding
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    listed = content.get(name) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise DataError(f"{path}: has no list {name!r}; is it of another format? name it")
    for index, entry in enumerate(listed):
        if isinstance(entry, dict):
            yield index, entry
        else:
            _complain(path, f"{name}[{index}]", "is not an object", on_finding)


def _complain(path: Path, entry: str, message: str, on_finding: OnFinding) -> None:
    on_finding(Finding(kind="row", place=Place(path, entry=entry), message=message))
