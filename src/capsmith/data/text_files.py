"""Text files as numbered lines, and lines as the records of a table."""

from __future__ import annotations

import csv
import gzip
import lzma
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final, cast

from capsmith.data.rows import Finding, OnFinding, Place
from capsmith.errors import DataError

Line = tuple[int, str]

READ_ERRORS: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a file may raise, compressed ones too."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MOST_LINES_OF_A_RECORD = 100


def read_lines(path: Path, on_finding: OnFinding) -> Iterator[Line]:
    """Yield (number from 1, text) of every line, without its end and without a byte order mark.

    A line that is not UTF-8 is a finding, and is read as Windows-1252, which is what such files
    mostly are. Of gzip and xz files the content is read. Raises `DataError`.
    """
    try:
        with open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith(_UTF16_MARKS):
                    raise DataError(f"{path}: is UTF-16; save it as UTF-8")
                line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
                yield number, _decode(line.rstrip(b"\r\n"), Place(path, number), on_finding)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def open_binary(path: Path) -> IO[bytes]:
    """Open a file, or the content of a gzip or xz file, told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if start == b"\xfd7zXZ\x00":
        return cast(IO[bytes], lzma.open(path, "rb"))
    return path.open("rb")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read at all."""
    reason = error.strerror if isinstance(error, OSError) else None
    return DataError(f"{path}: cannot be read: {reason or error}; check the path and the file")


def records(
    lines: Iterable[Line], delimiter: str, columns: int, *, is_text_last: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, fields) of each record of a CSV or TSV; empty lines pass.

    Quotes are read as CSV has them, over several lines where need be. Where `is_text_last`, a
    line with quotes that no CSV writer makes, or without a quoted field and with more delimiters
    than columns need, was written without quoting: its text goes on to its end.
    """
    source, waiting = iter(lines), deque[Line]()
    unquoted = columns - 1 if is_text_last else -1
    while waiting or _take(source, waiting):
        number, text = waiting.popleft()
        if not text.strip():
            continue
        fields = _split(text, delimiter)
        if fields is None:
            fields = _split_over_lines(text, delimiter, columns, source, waiting)
        if fields is None or (len(fields) > columns and f'{delimiter}"' not in text):
            fields = text.split(delimiter, unquoted)
        yield number, fields


def _split_over_lines(
    text: str, delimiter: str, columns: int, source: Iterator[Line], waiting: deque[Line]
) -> list[str] | None:
    """The fields of a record whose quote closes on a later line; those lines leave `waiting`."""
    for taken in range(1, _MOST_LINES_OF_A_RECORD):
        if text.count('"') % 2 == 0 or (len(waiting) < taken and not _take(source, waiting)):
            return None
        text = f"{text}\n{waiting[taken - 1][1]}"
        fields = _split(text, delimiter)
        if fields is not None:
            if len(fields) != columns:
                return None
            for _ in range(taken):
                waiting.popleft()
            return fields
    return None


def _take(source: Iterator[Line], waiting: deque[Line]) -> bool:
    line = next(source, None)
    if line is not None:
        waiting.append(line)
    return line is not None


def _split(text: str, delimiter: str) -> list[str] | None:
    """The fields of one whole record, or None where its quotes are not those of CSV."""
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _decode(raw: bytes, place: Place, on_finding: OnFinding) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start + 1} of the line is not UTF-8"
        on_finding(Finding(kind="encoding", place=place, message=wrong))
        return raw.decode("cp1252", errors="replace")
