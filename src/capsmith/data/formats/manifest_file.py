"""capsmith's own format: one JSON object a line, a header first, then a photo or a text each.

    {"capsmith": "manifest", "format": 1}
    {"id": "dog.jpg", "file": "train-00.tar", "member": "dog.jpg", "split": "train",
     "captions": [{"text": "A dog runs .", "language": "en", "weight": 1.0}]}

Files are named from the manifest's own folder. A text without a photo has no `id` and no `file`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsmith import strict_json
from capsmith.data.photos import PhotoBytes, tar_members
from capsmith.data.rows import OnFinding, Place, Row
from capsmith.data.text_files import read_lines
from capsmith.errors import DataError

FORMAT = 1
HEADER = {"capsmith": "manifest", "format": FORMAT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A caption in a manifest's line."""

    text: str
    language: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A manifest's line: a photo with its captions, or captions without a photo."""

    captions: tuple[Caption, ...]
    id: str = ""
    file: str = ""
    member: str = ""
    split: str = ""


def is_header(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is the first line of a manifest, of any version."""
    return value.get("capsmith") == "manifest"


def read_manifest(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """The rows of a manifest; it is read strictly: what is not as declared raises `DataError`."""
    tars: dict[Path, dict[str, PhotoBytes]] = {}
    for number, line in read_lines(path, on_finding):
        place = Place(path, number)
        value = _parse(line, place)
        if number == 1:
            _check_header(value, place)
            continue
        try:
            entry = strict_json.parse(Entry, value)
        except ValueError as error:
            raise DataError(f"{place}: {error}; make the manifest again") from None
        source = _source(entry, place, tars) if entry.id else None
        for caption in entry.captions:
            yield Row(
                photo=entry.id,
                text=caption.text,
                place=place,
                language=caption.language,
                split=entry.split,
                source=source,
                weight=caption.weight,
            )


def _parse(line: str, place: Place) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{place}: is not a JSON object; make the manifest again")
    return value


def _check_header(value: Mapping[str, Any], place: Place) -> None:
    version = value.get("format")
    if not is_header(value):
        raise DataError(f"{place}: is not the header of a manifest; name its format")
    if version != FORMAT:
        raise DataError(
            f"{place}: has format {strict_json.show(version)}, this capsmith reads {FORMAT};"
            " update capsmith"
        )


def _source(entry: Entry, place: Place, tars: dict[Path, dict[str, PhotoBytes]]) -> PhotoBytes:
    file = Path(place.path.parent, entry.file)
    if not entry.member:
        return PhotoBytes(file)
    if file not in tars:
        tars[file] = {photo.member: photo for photo in tar_members(file)}
    found = tars[file].get(entry.member)
    if found is None:
        raise DataError(f"{place}: {file} has no member {entry.member}; make the manifest again")
    return found
