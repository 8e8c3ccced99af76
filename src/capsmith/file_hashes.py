"""SHA-256 of files; that of large ones is remembered under the user's cache folder.

A large file is taken for unchanged while its path, size and modification time are. The memory is
a convenience: whatever is wrong with it, the file is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from capsmith import atomic, strict_json

_REMEMBER_OVER_BYTES = 100_000_000
_MAX_MEMORY_BYTES = 10_000_000


def sha256_of(path: Path) -> str:
    """Hash the file now, and remember the result where the file is large. Lower-case hex."""
    before = path.stat()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    after = path.stat()
    if after.st_size > _REMEMBER_OVER_BYTES and _stamp(before) == _stamp(after):
        _remember(path, [*_stamp(after), found])
    return found


def remembered_sha256(path: Path) -> str:
    """The hash of a large unchanged file from memory; else as `sha256_of`."""
    state = path.stat()
    if state.st_size > _REMEMBER_OVER_BYTES:
        entry = _recall().get(str(path))
        if isinstance(entry, list) and entry[:-1] == _stamp(state):
            return str(entry[-1])
    return sha256_of(path)


def cache_folder() -> Path:
    """Where capsmith keeps what it can make again: the platform's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "capsmith"


def _stamp(state: os.stat_result) -> list[int]:
    return [state.st_size, state.st_mtime_ns]


def _recall() -> dict[str, object]:
    try:
        return strict_json.read_object(_memory_path(), max_bytes=_MAX_MEMORY_BYTES)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        return {}


def _remember(path: Path, entry: list[int | str]) -> None:
    entries = {name: old for name, old in _recall().items() if Path(name).exists()}
    entries[str(path)] = entry
    try:
        _memory_path().parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(_memory_path(), json.dumps(entries, indent=1))
    except (OSError, RuntimeError):
        return  # a read-only home costs time, not correctness


def _memory_path() -> Path:
    return cache_folder() / "file-hashes.json"
