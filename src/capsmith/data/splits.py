"""Official split lists: text files that name the photos of a split, one a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from capsmith.data.photos import is_photo_name
from capsmith.data.rows import Place, refuse
from capsmith.data.text_files import read_lines
from capsmith.errors import ConfigError, DataError

SPLITS: Final = ("train", "val", "test")
_ALIASES: Final = {"dev": "val", "valid": "val", "validation": "val", "training": "train"}
# Flickr8k's "Flickr_8k.trainImages.txt", Flickr30k's and Multi30k's "train.txt", "val_images.txt".
_OFFICIAL: Final = re.compile(
    r"(?:flickr_?(?:8|30)k[._])?(train|dev|val|test)(?:_?images)?\.txt", re.I
)


def split_name(name: str, where: object) -> str:
    """One of `SPLITS`, or "" where `name` is; raises `DataError` for another."""
    name = name.strip().lower()
    name = _ALIASES.get(name, name)
    if name and name not in SPLITS:
        raise DataError(f"{where}: there is no split {name!r}; they are: {', '.join(SPLITS)}")
    return name


def is_split_list(path: Path) -> bool:
    """Whether a file has the name of an official split list and holds one name a line."""
    if not _OFFICIAL.fullmatch(path.name):
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1000)
    except (OSError, UnicodeDecodeError):
        return False
    return len(first.split()) == 1


def official_lists(folder: Path) -> dict[str, Path]:
    """Split -> list, for the official lists that lie in the folder.

    Raises `DataError` where one split has two.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _OFFICIAL.fullmatch(path.name)
        if match is None or not is_split_list(path):
            continue
        split = split_name(match[1], path)
        if split in found:
            raise DataError(
                f"{path}: is a second list of {split} beside {found[split].name}; name one"
            )
        found[split] = path
    return found


@dataclass
class SplitLists:
    """The splits that lists give to photos."""

    _places: dict[str, list[tuple[str, Place]]] = field(default_factory=dict)
    _unused: dict[Path, bool] = field(default_factory=dict)

    @classmethod
    def read(cls, lists: Mapping[str, Path]) -> SplitLists:
        """Read split -> list; raises `DataError` for a list that names nothing."""
        made = cls()
        for name, path in lists.items():
            split = split_name(name, path)
            if not split:
                raise ConfigError(f"{path}: a split list needs its split: {', '.join(SPLITS)}")
            made._unused[path] = True
            for number, line in read_lines(path, refuse):
                if photo := line.strip().replace("\\", "/"):
                    claim = (split, Place(path, number))
                    for key in {photo, _name(photo)}:
                        made._places.setdefault(key, []).append(claim)
            if not any(place.path == path for found in made._places.values() for _, place in found):
                raise DataError(f"{path}: names no photo; fetch the list again")
        return made

    def of(self, photo: str) -> list[tuple[str, Place]]:
        """(split, where it says so) for every line that names the photo."""
        keys = (photo, _stem(photo), _name(photo), _stem(_name(photo)))
        found = next((self._places[key] for key in keys if key in self._places), [])
        for _, place in found:
            self._unused[place.path] = False
        return found

    def check_used(self) -> None:
        """Raise `DataError` for a list none of whose photos was ever asked for."""
        for path, is_unused in self._unused.items():
            if is_unused:
                raise DataError(
                    f"{path}: names none of the photos that have captions, so its split is empty;"
                    " give the list of this data set"
                )


def _name(photo: str) -> str:
    return photo.rpartition("/")[2]


def _stem(photo: str) -> str:
    return photo[: photo.rindex(".")] if is_photo_name(photo) else photo
