"""From the command line's arguments to the photos they name, in a fixed order."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from capsmith.cli.output import escape_name
from capsmith.data.photos import is_photo_name
from capsmith.errors import ConfigError
from capsmith.runtime.pictures import NamedBytes, PictureLimits

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo to caption.

    `name` is what the output calls it, `picture` what the captioner opens, `relative` where it
    lies below the folder that was asked for (its file name, if it was asked for by itself).
    """

    name: str
    picture: str | bytes
    relative: PurePath


@dataclass(slots=True)
class Found:
    """All photos in order, how many other files the folders held, and the folders that failed."""

    photos: list[Photo] = field(default_factory=list)
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def find_photos(arguments: Iterable[str], *, allow_urls: bool) -> Found:
    """The photos that `arguments` name: files, folders, addresses and `-` for stdin.

    Folders are walked recursively in sorted order without following links, and give the files
    with a photo's suffix. A file that is named itself is taken whatever it is called.
    """
    found = Found()
    for argument in expand_globs(arguments, is_windows=os.name == "nt"):
        if argument == STDIN:
            found.photos.append(_read_stdin(found.photos))
        elif argument.lower().startswith(("http://", "https://")):
            found.photos.append(_address(argument, allow_urls=allow_urls))
        elif os.path.isdir(argument):  # noqa: PTH112 - no error where the parent is closed to us
            _walk(argument, found)
        else:
            found.photos.append(_photo(argument, PurePath(PurePath(argument).name)))
    return found


def expand_globs(arguments: Iterable[str], *, is_windows: bool) -> Iterator[str]:
    """Replace patterns by the sorted files they match, because Windows shells leave that to us.

    A file of that very name comes first; a pattern that matches nothing stays as it is.
    """
    for argument in arguments:
        if is_windows and glob.has_magic(argument) and not Path(argument).exists():
            yield from sorted(glob.glob(argument, recursive=True)) or [argument]  # noqa: PTH207
        else:
            yield argument


def _read_stdin(earlier: list[Photo]) -> Photo:
    if any(photo.name == STDIN for photo in earlier):
        raise ConfigError("- (stdin) is named twice; a photo can be read from it once")
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError(
            "- reads a photo from stdin, which is a terminal; use: capsmith caption - < photo"
        )
    # One byte over the limit is enough for the picture's own size check to refuse it.
    content = NamedBytes(sys.stdin.buffer.read(PictureLimits().max_bytes + 1), STDIN)
    return Photo(STDIN, content, PurePath("stdin"))


def _address(address: str, *, allow_urls: bool) -> Photo:
    if not allow_urls:
        raise ConfigError(f"{address} is an address; add --allow-urls to fetch it")
    name = PurePath(address.split("?")[0].split("#")[0].rstrip("/")).name
    return Photo(address, address, PurePath(name))


def _photo(path: str, relative: PurePath) -> Photo:
    # Python decodes names by the locale, the output is UTF-8: the same bytes must come out.
    return Photo(os.fsencode(path).decode("utf-8", "surrogateescape"), path, relative)


def _walk(folder: str, found: Found) -> None:
    """Add the photos below `folder`, every folder's entries in the order of their bytes."""
    waiting: list[tuple[str, PurePath, bool]] = [(folder, PurePath(), True)]
    while waiting:
        path, relative, is_folder = waiting.pop()
        if is_folder:
            waiting += reversed(_entries(path, relative, found))
        else:
            found.photos.append(_photo(path, relative))


def _entries(folder: str, relative: PurePath, found: Found) -> list[tuple[str, PurePath, bool]]:
    entries: list[tuple[str, PurePath, bool]] = []
    try:
        with os.scandir(folder) as scanned:
            ordered = sorted(scanned, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        found.failures.append(f"{escape_name(folder)}: cannot be listed: {error.strerror}")
        return entries
    for entry in ordered:
        below = relative / entry.name
        if entry.is_dir(follow_symlinks=False):
            entries.append((entry.path, below, True))
        elif entry.is_file(follow_symlinks=False) and is_photo_name(entry.name):
            entries.append((entry.path, below, False))
        else:
            found.skipped += 1
    return entries
