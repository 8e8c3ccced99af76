"""Tables with named columns: CSV and TSV (Kaggle's Flickr8k and Flickr30k too), JSONL, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from capsmith.data.rows import Finding, OnFinding, Place, Row
from capsmith.data.text_files import read_lines, records
from capsmith.errors import ConfigError, DataError
from capsmith.strict_json import show

Columns = Mapping[str, str]
"""Which column is the "photo", the "caption", the "split" and the "language"."""

ROLES: Final = ("photo", "caption", "split", "language")
_DELIMITERS: Final = (",", "\t", ";")
_USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "photo": (
        "image",
        "image_name",
        "file_name",
        "filename",
        "image_path",
        "file_path",
        "filepath",
        "path",
        "photo",
        "image_id",
    ),
    "caption": ("caption", "captions", "comment", "text", "sentence", "description"),
    "split": ("split",),
    "language": ("language", "lang"),
}


def csv_table(path: Path, on_finding: OnFinding, columns: Columns) -> Iterator[Row]:
    """CSV, TSV or semicolons below a header that names the columns, quoted or not.

    `captions.txt` of Flickr8k and Flickr30k on Kaggle is such a file, with or without
    `comment_number`.
    """
    lines = read_lines(path, on_finding)
    number, header = next(((n, text) for n, text in lines if text.strip()), (0, ""))
    if not number:
        raise DataError(f"{path}: is empty; fetch it again")
    delimiter = delimiter_of(header, columns) or ("\t" if "\t" in header else ",")
    names = next(
        fields for _, fields in records([(number, header)], delimiter, 0, is_text_last=False)
    )
    names = [name.strip() for name in names]
    roles = choose_columns(names, columns, path)
    is_text_last = names[-1] == roles["caption"]
    for line, fields in records(lines, delimiter, len(names), is_text_last=is_text_last):
        place = Place(path, line)
        if len(fields) != len(names):
            wrong = f"has {len(fields)} columns where the header has {len(names)}"
            on_finding(Finding(kind="row", place=place, message=wrong))
            continue
        yield from _rows(dict(zip(names, fields, strict=True)), roles, place, on_finding)


def jsonl(path: Path, on_finding: OnFinding, columns: Columns) -> Iterator[Row]:
    """One JSON object a line, of the first one's columns; the caption may be a list of captions."""
    roles: dict[str, str] = {}
    for number, line in read_lines(path, on_finding):
        if not line.strip():
            continue
        place = Place(path, number)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            on_finding(Finding(kind="row", place=place, message="is not a JSON object"))
            continue
        roles = roles or choose_columns(list(entry), columns, place)
        yield from _rows(entry, roles, place, on_finding)


def parquet(path: Path, on_finding: OnFinding, columns: Columns) -> Iterator[Row]:
    """A Parquet file with columns of text; the caption may be a list of captions."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path}: reading Parquet needs pyarrow: pip install 'capsmith[train]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            roles = choose_columns(list(file.schema_arrow.names), columns, path)
            number = 0
            for batch in file.iter_batches(columns=list(roles.values())):
                for entry in batch.to_pylist():
                    number += 1
                    place = Place(path, entry=f"row {number}")
                    yield from _rows(entry, roles, place, on_finding)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is not a readable Parquet file ({reason})") from None


def delimiter_of(header: str, columns: Columns) -> str | None:
    """What stands between the columns of a header that names a photo and a caption."""
    for delimiter in _DELIMITERS:
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        if all(_find(names, role, columns) in names for role in ("photo", "caption")):
            return delimiter
    return None


def choose_columns(names: list[str], columns: Columns, place: object) -> dict[str, str]:
    """Role -> column for the columns that are there; raises `DataError` where one is unclear."""
    for role, column in columns.items():
        if role not in ROLES:
            raise ConfigError(f"{role!r} is no column's role; the roles are: {', '.join(ROLES)}")
        if column not in names:
            raise DataError(
                f"{place}: has no column {show(column)}; it has: {', '.join(map(show, names))}"
            )
    found = {role: name for role in ROLES if (name := _find(names, role, columns))}
    for role in ("photo", "caption"):
        if role not in found:
            raise DataError(
                f"{place}: no column is known to be the {role};"
                f" name one of {', '.join(map(show, names))} with --column {role}=NAME"
            )
    for name in found.values():
        if names.count(name) > 1:
            raise DataError(f"{place}: has the column {show(name)} twice; rename one")
    return found


def _find(names: Iterable[str], role: str, columns: Columns) -> str | None:
    if role in columns:
        return columns[role]
    by_lower = {name.lower(): name for name in reversed(list(names))}
    return next((by_lower[usual] for usual in _USUAL[role] if usual in by_lower), None)


def _rows(
    entry: Mapping[str, Any], roles: Mapping[str, str], place: Place, on_finding: OnFinding
) -> Iterator[Row]:
    photo, captions = entry.get(roles["photo"]), entry.get(roles["caption"])
    texts = captions if isinstance(captions, list) else [captions]
    if isinstance(photo, int) and not isinstance(photo, bool):
        photo = str(photo)
    if not isinstance(photo, str) or not photo.strip():
        wrong = f"{roles['photo']} is {show(photo)}, not the name of a photo"
        on_finding(Finding(kind="row", place=place, message=wrong))
        return
    split, language = (entry.get(roles.get(role, "")) or "" for role in ("split", "language"))
    for text in texts:
        if not (
            isinstance(text, str | None) and isinstance(split, str) and isinstance(language, str)
        ):
            wrong = "a caption, split or language is not text"
            on_finding(Finding(kind="row", place=place, message=wrong))
            continue
        yield Row(photo=photo.strip(), text=text or "", place=place, split=split, language=language)
