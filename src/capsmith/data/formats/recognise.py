"""Tells a format by a file's first bytes and lines, never by its name."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Final

from capsmith.data.formats import json_files, line_files, photo_files, tables
from capsmith.data.formats.manifest_file import is_header
from capsmith.data.photos import is_tar
from capsmith.data.splits import is_split_list
from capsmith.data.text_files import READ_ERRORS, open_binary, unreadable
from capsmith.errors import DataError

_SUFFIXES: Final = frozenset({".csv", ".json", ".jsonl", ".parquet", ".token", ".tsv", ".txt"})
_FIRST_BYTES: Final = 1 << 16
_LINE_FORMATS: Final = (
    ("flickr-cn", re.compile(r"\S+#[a-z]{3}#\d+ .*")),
    ("flickr-token", re.compile(r"[^\t]+#\d+\t.*")),
    ("flickr-cn", re.compile(r"\S+#\d+ .*")),
    ("conceptual", re.compile(r"[^\t]*\thttps?://[^\t]*")),
    ("clipcap-chinese", re.compile(rf"\S+\t[^\t]*[{line_files.CJK}][^\t]*")),
)


def recognise(path: Path) -> str | None:
    """The format of a file, or None. Raises `DataError` for one that cannot be read."""
    try:
        with open_binary(path) as file:
            start = file.read(_FIRST_BYTES)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None
    _refuse_container(path, start)
    if start[:4] == b"PAR1":
        return "parquet"
    if is_tar(path):
        return "webdataset" if photo_files.has_captions(path) else None
    text = start.decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    lines = [line for line in (lines if len(start) < _FIRST_BYTES else lines[:-1]) if line.strip()]
    if text.lstrip()[:1] in ("{", "["):
        return _json_format(path, lines)
    return _line_format(lines)


def recognise_folder(folder: Path) -> tuple[Path, str]:
    """The one file of captions in a folder and its format, or the folder itself with its own.

    Raises `DataError` where there is none or several.
    """
    if next(photo_files.sidecar_pairs(folder), None):
        return folder, "sidecar"
    found = [
        (path, name)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not is_split_list(path)
        if (name := recognise(path))
    ]
    if len(found) > 1:
        names = ", ".join(path.name for path, _ in found)
        raise DataError(f"{folder}: has {len(found)} files of captions; name one: {names}")
    if found:
        return found[0]
    if any(photo_files.has_captions(shard) for shard in photo_files.shards(folder)[:1]):
        return folder, "webdataset"
    raise DataError(
        f"{folder}: has no file of captions that is known, and no photo has a .txt or .caption"
        " beside it; name the file"
    )


def _refuse_container(path: Path, start: bytes) -> None:
    """Raise `DataError` for a file that holds others, or what only Python can open."""
    is_zip = start[:4] == b"PK\x03\x04"
    # torch.save writes a zip with a pickle in it.
    if start[:1] == b"\x80" or (is_zip and b"data.pkl" in start[:300]):
        raise DataError(
            f"{path}: is a pickle, which can run any program when it is opened; give the captions"
            " it was made from, and encode the photos with: capsmith embed"
        )
    if is_zip:
        raise DataError(f"{path}: is a zip archive; unpack it and name what is in it")
    if start[257:262] == b"ustar" and not is_tar(path):
        raise DataError(f"{path}: is a compressed tar; uncompress it, photos are read in place")


def _json_format(path: Path, lines: list[str]) -> str | None:
    first = _object(lines[0]) if lines else None
    if first is not None and is_header(first):
        return "manifest"
    if first is not None and (len(lines) > 1 or path.suffix.lower() == ".jsonl"):
        return "jsonl"
    return json_files.recognise(json_files.load(path))


def _object(line: str) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _line_format(lines: list[str]) -> str | None:
    if not lines:
        return None
    if re.fullmatch(r"image_name\s*\|\s*comment_number\s*\|\s*comment\s*", lines[0]):
        return "flickr-results"
    if tables.delimiter_of(lines[0], {}):
        return "csv"
    # Not all of them: a file with a few broken lines is still of its format.
    few = list(islice(lines, 20))
    for name, pattern in _LINE_FORMATS:
        if sum(pattern.fullmatch(line) is not None for line in few) * 10 > len(few) * 8:
            return name
    return None
