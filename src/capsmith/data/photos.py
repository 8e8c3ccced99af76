"""Where photos lie: files in folders, and members of tars that stay packed."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from capsmith.errors import DataError, ImageError
from capsmith.runtime.pictures import NamedBytes, Picture, PictureLimits

# fmt: off
SUFFIXES: Final = frozenset({
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif",
    ".tiff", ".webp",
})
# fmt: on
# COCO's file lists give numbers, its files are named COCO_val2014_000000000042.jpg or, since 2017,
# 000000000042.jpg.
_COCO_PREFIX: Final = re.compile(r"COCO_(train|val|test)\d{4}_(?=\d{12}$)")
_COCO_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class PhotoBytes:
    """A file, or `size` bytes at `offset` of a tar, where `member` lies."""

    path: Path
    member: str = ""
    offset: int = 0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def picture(self) -> Picture:
        """What `open_picture` takes; its messages name the tar and the member.

        Raises `ImageError` where a tar cannot be read.
        """
        if not self.member:
            return self.path
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                # One byte over the limit is enough for the picture's own size check to refuse it.
                content = file.read(min(self.size, PictureLimits().max_bytes + 1))
        except OSError as error:
            raise ImageError(f"{self}: cannot be read: {error.strerror}") from error
        return NamedBytes(content, str(self))


def is_photo_name(name: str) -> bool:
    """Whether a file is called as photos are."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def tar_members(path: Path) -> Iterator[PhotoBytes]:
    """All plain files of an uncompressed tar, in its order; raises `DataError`."""
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size > end:
                    raise DataError(f"{path}: is cut off inside {member.name}; copy it again")
                if member.isreg() and not member.issparse():
                    yield PhotoBytes(path, member.name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: is not an uncompressed tar ({error}); unpack it with gzip -d or the like"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from None


def is_tar(path: Path) -> bool:
    """Whether a file has a tar's mark; an unreadable one has not."""
    try:
        with path.open("rb") as file:
            return file.read(512)[257:262] == b"ustar"
    except OSError:
        return False


class PhotoIndex:
    """All photos below folders and in tars, found by the names that caption files call them."""

    def __init__(self, places: Iterable[Path]) -> None:
        """Look through `places`: folders (all below, links to folders not followed) and tars.

        Raises `DataError` where one is neither.
        """
        self._by_name: dict[str, list[tuple[str, PhotoBytes]]] = {}
        self._by_stem: dict[str, list[tuple[str, PhotoBytes]]] = {}
        self._size = 0
        for place in places:
            for relative, photo in _photos_at(place):
                name = PurePosixPath(relative)
                self._by_name.setdefault(name.name, []).append((relative, photo))
                stem = _COCO_PREFIX.sub("", name.stem)
                for key in {name.stem, stem}:
                    self._by_stem.setdefault(key, []).append((relative, photo))
                self._size += 1

    def __len__(self) -> int:
        return self._size

    def find(self, name: str) -> list[tuple[str, PhotoBytes]]:
        """(id, bytes) of the photos that `name` may mean: one, none, or several.

        `name` may have folders before it, and may lack the suffix. The id is the file's name, or
        its path below the folder where several photos have the name.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        found = self._by_name.get(wanted.name, [])
        if not found and not is_photo_name(name):
            found = self._by_stem.get(wanted.name, [])
            if not found and wanted.name.isdecimal():
                found = self._by_stem.get(wanted.name.zfill(_COCO_DIGITS), [])
        if len(found) <= 1:
            return [(PurePosixPath(relative).name, photo) for relative, photo in found]
        narrowed = [entry for entry in found if _ends_with(entry[0], wanted)]
        return narrowed or found


def _ends_with(relative: str, wanted: PurePosixPath) -> bool:
    path = PurePosixPath(relative)
    parts = tuple(part for part in wanted.parts if part not in (".", "..", "/"))
    return any(known.parts[-len(parts) :] == parts for known in (path, path.with_suffix("")))


def _photos_at(place: Path) -> Iterator[tuple[str, PhotoBytes]]:
    if place.is_dir():
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if is_photo_name(name):
                    yield path.relative_to(place).as_posix(), PhotoBytes(path)
                elif path.suffix.lower() == ".tar" and is_tar(path):
                    yield from _members_at(path)
    elif place.is_file():
        yield from _members_at(place)
    else:
        raise DataError(f"{place}: no such folder or tar of photos; check the path")


def _members_at(path: Path) -> Iterator[tuple[str, PhotoBytes]]:
    return ((photo.member, photo) for photo in tar_members(path) if is_photo_name(photo.member))
