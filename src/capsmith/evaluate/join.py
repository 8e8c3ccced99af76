"""Joins captions with photos by name: with or without folders and suffixes, or by COCO's number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from capsmith.errors import DataError

# 000000000042.jpg, COCO_val2014_000000000042.jpg, or 42.
_NUMBERED: Final = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d+)", re.ASCII)
# What follows the last point of a name such as "mr. smith" is no suffix.
_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,5}")


class PhotoNames:
    """Photos by what others may call them."""

    def __init__(self, photos: Iterable[str], aliases: Mapping[str, str] | None = None) -> None:
        """photos: ids, each once. aliases: other names of them -> id."""
        self._photos = tuple(photos)
        self._aliases = dict(aliases or {})
        self._keys: dict[tuple[str, str], list[str]] = {}
        for photo in self._photos:
            for key in _keys(photo):
                self._keys.setdefault(key, []).append(photo)

    def find(self, name: str, where: object) -> str | None:
        """The id of the photo that `name` means, None where there is none.

        The closest kind of likeness that any photo has decides: the whole path, an alias, the
        name, the name without its suffix, the number. Of several photos of one name those remain
        that share the most folders with `name`. Raises `DataError`, which says `where`, if
        several are left.
        """
        whole, *others = _keys(name)
        if whole in self._keys:
            return self._keys[whole][0]
        if name in self._aliases:
            return self._aliases[name]
        found = next((self._keys[key] for key in others if key in self._keys), [])
        if len(found) > 1:
            shared = [_shared_folders(name, photo) for photo in found]
            found = [p for p, n in zip(found, shared, strict=True) if n == max(shared)]
        if len(found) > 1:
            raise DataError(
                f"{where}: {name} may be {found[0]} or {found[1]} of the references; give its"
                " folder as they do"
            )
        return found[0] if found else None


def _keys(name: str) -> list[tuple[str, str]]:
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if _SUFFIX.fullmatch(path.suffix) else path.name
    keys = [("path", str(path)), ("name", path.name), ("stem", stem)]
    number = _NUMBERED.fullmatch(stem)
    return [*keys, ("number", number[1].lstrip("0"))] if number else keys


def _shared_folders(name: str, photo: str) -> int:
    """How many folders above the file are called alike, from the file upwards."""
    pairs = zip(_folders(name), _folders(photo), strict=False)
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count


def _folders(name: str) -> list[str]:
    return list(PurePosixPath(name.replace("\\", "/")).parts[-2::-1])
