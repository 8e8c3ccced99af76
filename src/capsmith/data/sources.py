"""From the data sets that a recipe or a command names to one manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from capsmith import strict_json
from capsmith.data.formats import WITH_PHOTOS, find_captions, read_rows
from capsmith.data.manifest import Manifest, Photo
from capsmith.data.photos import PhotoBytes, PhotoIndex
from capsmith.data.rows import CaptionLine, Finding, Kind, OnFinding, Place, Row, refuse
from capsmith.data.splits import SplitLists, official_lists, split_name
from capsmith.errors import ConfigError, DataError

_MAX_MIXTURE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One data set. Only `path`, its file or folder of captions, is needed.

    format: the name of one of `formats`, where it should not be found by content.
    photos: folders and tars with the photos; default: all below the captions' folder, or below
        the folder above it.
    splits: split -> list of its photos; default: the official lists beside the captions.
    split: the split of all photos.
    language: of captions whose file does not say; default: English.
    weight: how often a caption is drawn beside one of weight 1.
    name: goes before the photos' ids ("name/dog.jpg"), where two data sets have the same names.
    columns: which column of a table is the photo, caption, split and language.
    """

    path: str
    format: str = ""
    photos: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    split: str = ""
    language: str = ""
    weight: float = 1.0
    name: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Several data sets, as a JSON file names them: `{"sources": [{"path": "de.csv"}, ...]}`."""

    sources: tuple[DataSource, ...]


def is_mixture(path: Path) -> bool:
    """Whether a file is a JSON object with "sources"."""
    try:
        content = strict_json.read_object(path, max_bytes=_MAX_MIXTURE_BYTES)
    except (OSError, ValueError):
        return False
    return "sources" in content


def read_mixture(path: Path) -> Mixture:
    """Read a mixture; its paths are relative to its folder. Raises `DataError`."""
    try:
        content = strict_json.read_object(path, max_bytes=_MAX_MIXTURE_BYTES)
        return strict_json.parse(Mixture, content)
    except ValueError as error:
        raise DataError(f"{path}: {error}; correct it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from None


def read_data(
    sources: Sequence[DataSource], *, base: Path | None = None, on_finding: OnFinding = refuse
) -> Manifest:
    """Read data sets and join them by the photos' ids.

    Paths are relative to `base` (default: the working folder). The first finding raises
    `DataError`, unless `on_finding` takes it: then what it concerns is left out. Photos without
    captions are left out silently.
    """
    joined = _Joined(on_finding)
    for source in sources:
        _read_source(source, base or Path(), joined)
    return joined.manifest()


@dataclass(frozen=True, slots=True)
class _Found:
    """A photo of a row: its id, its bytes, and the splits that the data set gives it."""

    photo: str
    source: PhotoBytes
    splits: tuple[tuple[str, Place], ...]


@dataclass(slots=True)
class _Draft:
    source: PhotoBytes
    captions: list[CaptionLine]
    splits: dict[str, Place]


class _Joined:
    """Photos of all data sets by id, as their rows come."""

    def __init__(self, on_finding: OnFinding) -> None:
        self.on_finding = on_finding
        self._drafts: dict[str, _Draft] = {}
        self._texts: list[CaptionLine] = []

    def add_text(self, line: CaptionLine) -> None:
        self._texts.append(line)

    def add(self, found: _Found, line: CaptionLine, splits: Iterable[tuple[str, Place]]) -> None:
        draft = self._drafts.get(found.photo)
        if draft is None:
            draft = self._drafts[found.photo] = _Draft(found.source, [], {})
        if draft.source != found.source:
            raise DataError(
                f"{line.place}: two photos are called {found.photo} ({draft.source} and"
                f' {found.source}); give one data set a "name"'
            )
        draft.captions.append(line)
        for split, place in (*found.splits, *splits):
            draft.splits.setdefault(split, place)

    def manifest(self) -> Manifest:
        photos = []
        for name, draft in self._drafts.items():
            if len(draft.splits) > 1:
                self._cross(name, draft.splits)
                continue
            split = next(iter(draft.splits), "")
            captions = tuple(draft.captions)
            photos.append(Photo(id=name, source=draft.source, captions=captions, split=split))
        return Manifest(tuple(photos), tuple(self._texts))

    def _cross(self, name: str, splits: Mapping[str, Place]) -> None:
        (first, _), (second, place), *_ = splits.items()
        where = f"{splits[first]} and {place}"
        wrong = f"photo {name} is in {first} and in {second} ({where}); splits are by image"
        self.on_finding(Finding(kind="split", place=place, message=wrong))


def _read_source(source: DataSource, base: Path, joined: _Joined) -> None:
    if not 0 < source.weight < float("inf"):
        raise ConfigError(f"{source.path}: weight is {source.weight:g}; it must be over 0")
    path = base / source.path
    if source.format:
        name = source.format
    else:
        path, name = find_captions(path)
    rows = read_rows(path, name, joined.on_finding, columns=source.columns)
    lists = SplitLists.read(_lists(source, path, base))
    finder = _Finder(source, _index(source, path, name, base), lists, joined.on_finding)
    count = 0
    for row in rows:
        count += 1
        _add_row(row, source, finder, joined)
    if not count:
        raise DataError(f"{path}: holds no captions; fetch it again, or name its format")
    if source.splits:
        lists.check_used()


def _add_row(row: Row, source: DataSource, finder: _Finder, joined: _Joined) -> None:
    line = CaptionLine(
        text=" ".join(row.text.split()),
        language=row.language or source.language or "en",
        place=row.place,
        weight=source.weight * row.weight,
    )
    if not line.text:
        wrong = f"the caption of {row.photo} is empty"
        joined.on_finding(Finding(kind="empty", place=row.place, message=wrong))
        return
    if not row.photo:
        joined.add_text(line)
        return
    found = finder.find(row)
    if found is None:
        return
    said = split_name(row.split, row.place)
    joined.add(found, line, [(said, row.place)] if said else [])


class _Finder:
    """Finds the photos of one data set; each that cannot be found is told once."""

    def __init__(
        self,
        source: DataSource,
        index: PhotoIndex | None,
        lists: SplitLists,
        on_finding: OnFinding,
    ) -> None:
        self._prefix = f"{source.name}/" if source.name else ""
        self._split = split_name(source.split, source.path)
        self._index = index
        self._lists = lists
        self._on_finding = on_finding
        self._known: dict[str, _Found | None] = {}

    def find(self, row: Row) -> _Found | None:
        if row.photo not in self._known:
            self._known[row.photo] = self._look_up(row)
        return self._known[row.photo]

    def _look_up(self, row: Row) -> _Found | None:
        found = self._candidates(row)
        if len(found) == 1:
            photo, where = found[0]
            # Two data sets may name the way to one file differently.
            where = replace(where, path=where.path.resolve())
            splits = self._lists.of(row.photo)
            if self._split:
                splits = [*splits, (self._split, row.place)]
            return _Found(self._prefix + photo, where, tuple(splits))
        kind: Kind = "ambiguous" if found else "missing"
        which = ", ".join(str(where) for _, where in found[:3])
        wrong = f"there is no photo {row.source or row.photo}"
        if found:
            wrong = f"{row.photo} may be one of several photos: {which}"
        self._on_finding(Finding(kind=kind, place=row.place, message=wrong))
        return None

    def _candidates(self, row: Row) -> list[tuple[str, PhotoBytes]]:
        if row.source is None:
            return self._index.find(row.photo) if self._index is not None else []
        is_there = row.source.member or row.source.path.is_file()
        return [(row.photo, row.source)] if is_there else []


def _lists(source: DataSource, captions: Path, base: Path) -> dict[str, Path]:
    if source.splits:
        return {split: base / path for split, path in source.splits.items()}
    if source.split:
        return {}
    return official_lists(captions if captions.is_dir() else captions.parent)


def _index(source: DataSource, captions: Path, name: str, base: Path) -> PhotoIndex | None:
    """The photos to find by name, where the rows do not say themselves where they are."""
    if name in WITH_PHOTOS or name == "text":
        return None
    if source.photos:
        return PhotoIndex(base / place for place in source.photos)
    folder = captions.resolve().parent
    for place in (folder, folder.parent):
        index = PhotoIndex([place])
        if len(index):
            return index
    raise DataError(
        f"{captions}: no photo lies below {folder.parent}; say where they are with --photos"
    )
