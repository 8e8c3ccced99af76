"""Captions by people to score others against: read as data sets are, with or without photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capsmith.data.formats import find_captions, json_files, read_rows
from capsmith.data.photos import PhotoBytes, PhotoIndex
from capsmith.data.rows import Place, Row, refuse
from capsmith.data.sources import DataSource
from capsmith.data.splits import SplitLists, official_lists, split_name
from capsmith.errors import DataError

_DEFAULT_LANGUAGE: Final = "en"


@dataclass(frozen=True, slots=True)
class ReferencePhoto:
    """A photo with its captions, as its file calls it; `source` where the file says where it is."""

    id: str
    captions: tuple[str, ...]
    source: PhotoBytes | None = None


@dataclass(frozen=True, slots=True)
class References:
    """Photos, each id once; `aliases` are numbers that results may call them by -> id."""

    photos: tuple[ReferencePhoto, ...]
    aliases: Mapping[str, str]
    language: str


@dataclass(frozen=True, slots=True)
class _Line:
    photo: str
    text: str
    language: str
    source: PhotoBytes | None


def read_references(
    sources: Sequence[DataSource], *, base: Path, split: str = "", language: str = ""
) -> References:
    """Read the captions of data sets, without looking for their photos.

    split: only the photos of this split. language: only the captions in it; by default the only
    one there is, and captions whose file does not say are of this language, or English.

    Raises `DataError` at the first thing that is wrong with a file, for a split or language without
    captions, and for captions in several languages of which none is asked for.
    """
    lines: list[_Line] = []
    aliases: dict[str, str] = {}
    splits: Counter[str] = Counter()
    wanted = split_name(split, "--split")
    for source in sources:
        path, name = _located(source, base)
        prefix = f"{source.name}/" if source.name else ""
        aliases |= {number: prefix + photo for number, photo in _aliases(path, name)}
        lists = _split_lists(source, path, base)
        for row in read_rows(path, name, refuse, columns=source.columns):
            if not row.photo:
                raise DataError(f"{row.place}: belongs to no photo; give captions of photos")
            found = _split_of(row, source, lists)
            splits[found] += 1
            if wanted in ("", found):
                lines.append(_line(row, prefix, source.language or language or _DEFAULT_LANGUAGE))
    where = ", ".join(str(base / source.path) for source in sources)
    if not lines:
        raise DataError(f"{where}: {_nothing(wanted, splits)}")
    return _grouped(lines, aliases, language, where)


def find_pictures(
    photos: Sequence[ReferencePhoto], sources: Sequence[DataSource], base: Path
) -> list[PhotoBytes | None]:
    """Where each photo's bytes are, None where it is not found or is one of several.

    Looked for as `sources.read_data` does: at the places that the data set names, else below the
    captions' folder, else below the folder above it.
    """
    indexes = [index for source in sources for index in _indexes(source, base)]
    found: list[PhotoBytes | None] = []
    for photo in photos:
        known = photo.source
        for index in indexes if known is None else ():
            matches = index.find(photo.id)
            if len(matches) == 1:
                known = matches[0][1]
                break
        found.append(known)
    return found


def _line(row: Row, prefix: str, language: str) -> _Line:
    text = " ".join(row.text.split())
    if not text:
        raise DataError(f"{row.place}: the caption of {row.photo} is empty; correct it")
    return _Line(prefix + row.photo, text, row.language or language, row.source)


def _grouped(
    lines: Sequence[_Line], aliases: Mapping[str, str], language: str, where: str
) -> References:
    languages = Counter(line.language for line in lines)
    if not language and len(languages) > 1:
        raise DataError(
            f"{where}: has captions in {', '.join(sorted(languages))}; choose one with --lang"
        )
    language = language or next(iter(languages))
    if language not in languages:
        others = ", ".join(sorted(languages))
        raise DataError(f"{where}: has no captions in {language!r}; it has: {others}")
    captions: dict[str, list[str]] = {}
    pictures: dict[str, PhotoBytes | None] = {}
    for line in lines:
        if line.language == language:
            captions.setdefault(line.photo, []).append(line.text)
            pictures.setdefault(line.photo, line.source)
    photos = tuple(ReferencePhoto(p, tuple(texts), pictures[p]) for p, texts in captions.items())
    there = {number: photo for number, photo in aliases.items() if photo in captions}
    return References(photos, there, language)


def _located(source: DataSource, base: Path) -> tuple[Path, str]:
    path = base / source.path
    return (path, source.format) if source.format else find_captions(path)


def _aliases(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """(number, photo) for COCO's files, and for Karpathy's, whose results go by their numbers."""
    if name not in ("coco", "karpathy"):
        return
    for image in json_files.load(path)["images"]:
        if not isinstance(image, dict):
            continue
        number = image.get("id") if name == "coco" else image.get("cocoid", image.get("imgid"))
        photo = image.get("file_name" if name == "coco" else "filename")
        if isinstance(number, int | str) and isinstance(photo, str):
            folder = image.get("filepath") if name == "karpathy" else None
            yield str(number), f"{folder}/{photo}" if isinstance(folder, str) else photo


def _split_lists(source: DataSource, path: Path, base: Path) -> SplitLists:
    if source.splits:
        return SplitLists.read({name: base / place for name, place in source.splits.items()})
    if source.split:
        return SplitLists.read({})
    return SplitLists.read(official_lists(path if path.is_dir() else path.parent))


def _split_of(row: Row, source: DataSource, lists: SplitLists) -> str:
    """The one split that the row, its data set or a list gives the photo, "" for none."""
    claims: dict[str, Place] = {}
    for name in (row.split, source.split):
        if name:
            claims.setdefault(split_name(name, row.place), row.place)
    for name, place in lists.of(row.photo):
        claims.setdefault(name, place)
    if len(claims) > 1:
        (first, _), (second, place), *_ = claims.items()
        raise DataError(
            f"{place}: photo {row.photo} is in {first} and in {second}; splits are by image"
        )
    return next(iter(claims), "")


def _nothing(split: str, splits: Counter[str]) -> str:
    if not splits:
        return "holds no captions; fetch it again, or name its format with --format"
    there = ", ".join(f"{name or 'none'} {count}" for name, count in sorted(splits.items()))
    return f"has no captions in split {split} (captions by split: {there}); name a list of it"


def _indexes(source: DataSource, base: Path) -> Iterator[PhotoIndex]:
    if source.photos:
        yield PhotoIndex(base / place for place in source.photos)
        return
    path = (base / source.path).resolve()
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder.parent):
        index = PhotoIndex([place])
        if len(index):
            yield index
            return
