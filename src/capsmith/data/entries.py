"""Files of entries with named fields: JSON lists, JSON lines, and tables with a header."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from capsmith.data.formats import json_files
from capsmith.data.rows import Finding, Place
from capsmith.data.text_files import READ_ERRORS, open_binary, read_lines, records, unreadable
from capsmith.errors import DataError
from capsmith.strict_json import show

Entry = tuple[Place, Mapping[str, Any]]

_MAX_BYTES: Final = 1 << 30
_CHUNK_BYTES: Final = 1 << 20


def read_entries(path: Path, *, known: Sequence[str], texts: Sequence[str]) -> Iterator[Entry]:
    """The entries of a file, told by its content, each with its place.

    known: names of fields in lower case, one of which a table's header has; a table without such
    a header is read as the lines that `capsmith caption` prints, `photo TAB caption`, with these
    two names. texts: names of fields that hold text, unquoted where they are a table's last.

    Raises `DataError` for a file that is none of these, empty, over 1 GB, or not UTF-8.
    """
    start = _checked_start(path)
    if start.startswith("["):
        yield from _listed(path)
    elif start.startswith("{"):
        yield from _json_lines(path)
    else:
        yield from _table(path, known, texts)


def refuse_finding(finding: Finding) -> None:
    """Raise what a reader finds wrong."""
    raise DataError(f"{finding.place}: {finding.message}; correct it")


def field_of(entry: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of `names` that the entry has, in any case of letters, as the entry writes it."""
    by_lower = {name.strip().lower(): name for name in reversed(list(entry))}
    return next((by_lower[name] for name in names if name in by_lower), None)


def photo_name(value: object, field: str, place: Place) -> str:
    """A photo's name or COCO's number as text; raises `DataError` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {field} is {show(value)}, not the name of a photo; correct it")
    return value.strip()


def _checked_start(path: Path) -> str:
    """The first characters that are no space; raises `DataError` for what cannot be read whole."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: is no plain file; save it as one first")
    size_bytes, start = 0, b""
    try:
        with open_binary(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                size_bytes += len(chunk)
                start = start or chunk.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
                if size_bytes > _MAX_BYTES:
                    raise DataError(f"{path}: is over 1 GB; give the captions of one set only")
    except READ_ERRORS as error:
        raise unreadable(path, error) from None
    if not start:
        raise DataError(f"{path}: is empty; make it again")
    return start.decode("latin-1")


def _listed(path: Path) -> Iterator[Entry]:
    content = json_files.load(path)
    if not content:
        raise DataError(f"{path}: is an empty list; make it again")
    for index, entry in enumerate(content):
        place = Place(path, entry=f"[{index}]")
        if not isinstance(entry, dict):
            raise DataError(f"{place}: is {show(entry)}, not an object with fields; correct it")
        yield place, entry


def _json_lines(path: Path) -> Iterator[Entry]:
    for number, line in read_lines(path, refuse_finding):
        if not line.strip():
            continue
        place = Place(path, number)
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise DataError(
                f"{place}: is not a JSON object; give a list of objects, or one object a line"
            )
        yield place, entry


def _table(path: Path, known: Sequence[str], texts: Sequence[str]) -> Iterator[Entry]:
    lines = read_lines(path, refuse_finding)
    header = next(line for _, line in lines if line.strip())
    delimiter = max("\t,;", key=header.count)
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    if not {name.lower() for name in names} & set(known):
        yield from _printed_lines(path)
        return
    is_text_last = names[-1].lower() in texts
    for line, fields in records(lines, delimiter, len(names), is_text_last=is_text_last):
        place = Place(path, line)
        if len(fields) != len(names):
            raise DataError(
                f"{place}: has {len(fields)} columns where the header has {len(names)}; correct it"
            )
        yield place, dict(zip(names, fields, strict=True))


def _printed_lines(path: Path) -> Iterator[Entry]:
    """`photo TAB caption`, and after `--scores` two more columns."""
    for number, line in read_lines(path, refuse_finding):
        if not line.strip():
            continue
        place, fields = Place(path, number), line.split("\t")
        if len(fields) < 2:
            raise DataError(
                f"{place}: is neither a header that names a photo and a caption, nor a photo, a tab"
                " and its caption; add a header"
            )
        yield place, {"photo": fields[0], "caption": fields[1]}
