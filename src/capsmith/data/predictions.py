"""Captions that a captioner made, and people's judgements of captions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from capsmith.data.entries import field_of, photo_name, read_entries
from capsmith.data.rows import Place
from capsmith.errors import DataError
from capsmith.strict_json import show

_PHOTO: Final = (
    "image", "image_name", "file_name", "filename", "image_path", "file_path", "filepath", "path",
    "photo", "image_id",
)  # fmt: skip
_CAPTION: Final = ("caption", "candidate", "prediction", "text", "sentence", "description")
_SCORE: Final = ("score", "judgement", "judgment", "rating")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One caption of one photo, which the file calls `photo`.

    language: what the file says, "" where it says nothing.
    """

    photo: str
    caption: str
    place: Place
    language: str = ""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Captions in the order of their file, and the photos that it says could not be captioned."""

    captions: tuple[Prediction, ...]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What people think of a caption; `caption` is None where the prediction itself is meant."""

    photo: str
    caption: str | None
    score: float
    place: Place


def read_predictions(path: Path) -> Predictions:
    """Read COCO's results (`[{"image_id": 42, "caption": "..."}]`), JSON lines, CSV or TSV.

    What `capsmith caption` prints is among them, with `--json` and without. The photo and the
    caption are found by the usual names of such fields, and `language`; others are ignored. Raises
    `DataError`, which names the line, for an entry that lacks one of them.
    """
    captions: list[Prediction] = []
    failed: list[str] = []
    for place, entry in read_entries(path, known=_PHOTO, texts=_CAPTION):
        photo = _photo(entry, place)
        field = field_of(entry, _CAPTION)
        if field is None and "error" in entry:
            failed.append(photo)
            continue
        said = entry.get("language")
        language = said if isinstance(said, str) else ""
        captions.append(Prediction(photo, _text(entry, field, place), place, language))
    if not captions:
        raise DataError(f"{path}: holds no captions; make it again")
    return Predictions(tuple(captions), tuple(failed))


def read_judgements(path: Path) -> tuple[Judgement, ...]:
    """Read judgements: JSON lines, a JSON list, CSV or TSV with a photo, a score, and a caption.

    Without a field for the caption, the score is that of the prediction. Raises `DataError`, which
    names the line, for a score that is not a finite number.
    """
    found = []
    for place, entry in read_entries(path, known=_SCORE, texts=_CAPTION):
        field = field_of(entry, _CAPTION)
        caption = None if field is None else _text(entry, field, place)
        found.append(Judgement(_photo(entry, place), caption, _score(entry, place), place))
    if not found:
        raise DataError(f"{path}: holds no judgements; make it again")
    return tuple(found)


def _photo(entry: Mapping[str, Any], place: Place) -> str:
    field = field_of(entry, _PHOTO)
    if field is None:
        raise DataError(f"{place}: {_lacks(entry, 'photo', 'image_id')}")
    return photo_name(entry[field], field, place)


def _text(entry: Mapping[str, Any], field: str | None, place: Place) -> str:
    if field is None:
        raise DataError(f"{place}: {_lacks(entry, 'caption', 'caption')}")
    text = entry[field]
    if not isinstance(text, str):
        raise DataError(f"{place}: {field} is {show(text)}, not text; correct it")
    return " ".join(text.split())


def _score(entry: Mapping[str, Any], place: Place) -> float:
    field = field_of(entry, _SCORE)
    if field is None:
        raise DataError(f"{place}: {_lacks(entry, 'judgement', 'score')}")
    value = entry[field]
    try:
        score = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score) or isinstance(value, bool):
        raise DataError(f"{place}: {field} is {show(value)}, not a finite number; correct it")
    return score


def _lacks(entry: Mapping[str, Any], what: str, usual: str) -> str:
    names = ", ".join(map(show, list(entry)[:8])) or "none"
    names += f" and {len(entry) - 8} others" if len(entry) > 8 else ""
    return f"no field is known to be the {what} (there are: {names}); call it {usual}"
