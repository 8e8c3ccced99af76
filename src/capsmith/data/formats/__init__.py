"""The formats that captions are published in, by name; and which one a file or folder has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from capsmith.data.formats import json_files, line_files, manifest_file, photo_files, tables
from capsmith.data.formats.recognise import recognise, recognise_folder
from capsmith.data.rows import OnFinding, Row
from capsmith.errors import ConfigError, DataError

_READERS: Final[Mapping[str, Callable[[Path, OnFinding], Iterator[Row]]]] = {
    "clipcap": json_files.clipcap,
    "clipcap-chinese": line_files.clipcap_chinese,
    "coco": json_files.coco,
    "conceptual": line_files.conceptual,
    "flickr-cn": line_files.flickr_cn,
    "flickr-results": line_files.flickr_results,
    "flickr-token": line_files.flickr_token,
    "karpathy": json_files.karpathy,
    "manifest": manifest_file.read_manifest,
    "sidecar": photo_files.sidecar,
    "text": line_files.plain_text,
    "webdataset": photo_files.webdataset,
}
_TABLES: Final[Mapping[str, Callable[[Path, OnFinding, tables.Columns], Iterator[Row]]]] = {
    "csv": tables.csv_table,
    "jsonl": tables.jsonl,
    "parquet": tables.parquet,
}
NAMES: Final = tuple(sorted([*_READERS, *_TABLES]))
WITH_PHOTOS: Final = frozenset({"manifest", "sidecar", "webdataset"})
"""Formats that say themselves where the photos are."""


def find_captions(path: Path) -> tuple[Path, str]:
    """The file (or folder) of captions that `path` names, and its format's name, by its content.

    In a folder it is the one file of captions. Raises `DataError` where there is none or several.
    """
    if path.is_dir():
        return recognise_folder(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    name = recognise(path)
    if name is None:
        raise DataError(
            f"{path}: is of no format that is known; if it is of one, name it with --format:"
            f" {', '.join(NAMES)}"
        )
    return path, name


def read_rows(
    path: Path, name: str, on_finding: OnFinding, *, columns: tables.Columns
) -> Iterator[Row]:
    """The rows of a file of format `name`; raises `DataError` and `ConfigError`."""
    if name in _TABLES:
        return _TABLES[name](path, on_finding, columns)
    if columns:
        raise ConfigError(f"{path}: columns are named for csv, jsonl and parquet, not for {name}")
    if name not in _READERS:
        raise ConfigError(f"there is no format {name!r}; the formats are: {', '.join(NAMES)}")
    return _READERS[name](path, on_finding)
