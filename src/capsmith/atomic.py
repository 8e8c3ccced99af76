"""Files and folders that are whole or absent, whatever happens while they are written.

Write beside the target, flush to disk, rename, flush the folder: the name then points to the old
or to the new content, never to a mixture, also after a crash or a power cut.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it changes only when the block ends without an error.

    An existing file is replaced. Raises `OSError` where the folder cannot be written.
    """
    temporary = _temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with open_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8 with the line ends it has."""
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `path` when the block ends without an error.

    Raises `FileExistsError` where `path` exists, before the block and again at its end. Missing
    parents are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_existing(path)
    temporary = _temporary_beside(path)
    temporary.mkdir()
    try:
        yield temporary
        publish_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish_folder(temporary: Path, path: Path) -> None:
    """Flush a finished folder and rename it, beside it on one file system, to `path`.

    Raises `FileExistsError` where `path` exists.
    """
    for folder, _, names in os.walk(temporary, topdown=False):
        for name in names:
            _sync_file(Path(folder, name))
        _sync_folder(Path(folder))
    # A rename would silently take the place of an empty folder on POSIX.
    _refuse_existing(path)
    temporary.rename(path)
    _sync_folder(path.parent)


def _temporary_beside(path: Path) -> Path:
    # The target's own folder: a rename is atomic only within one file system. The name is cut
    # because file systems end names at 255 bytes.
    return path.parent / f".{path.name[:40]}.{secrets.token_hex(8)}.tmp"


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: exists already")


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only handles that may write
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make a rename in the folder last; only POSIX systems can open a folder to flush it."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
