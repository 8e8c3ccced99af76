"""The manifest: photos by id, where their bytes are, their captions by language, their split."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from capsmith import atomic
from capsmith.data.formats.manifest_file import HEADER, Caption, Entry
from capsmith.data.photos import PhotoBytes
from capsmith.data.rows import CaptionLine
from capsmith.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A photo with its captions; `split` is "train", "val", "test", or "" for none."""

    id: str
    source: PhotoBytes
    captions: tuple[CaptionLine, ...]
    split: str = ""

    def texts(self, language: str | None = None) -> tuple[str, ...]:
        """The captions in one language, or all."""
        return tuple(c.text for c in self.captions if language in (None, c.language))


@dataclass(frozen=True, slots=True)
class Manifest:
    """Photos, each id once, and texts for training that belong to no photo."""

    photos: tuple[Photo, ...]
    texts: tuple[CaptionLine, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of all captions, sorted."""
        every = (caption for photo in self.photos for caption in photo.captions)
        return tuple(sorted({caption.language for caption in (*every, *self.texts)}))

    def of_split(self, split: str) -> Manifest:
        """The photos of one split ("" for those of none); the texts belong to "train"."""
        photos = tuple(photo for photo in self.photos if photo.split == split)
        return Manifest(photos, self.texts if split == "train" else ())

    def hold_out(self, share: float, *, seed: int = 0) -> Manifest:
        """The manifest with its photos dealt anew: `share` of them "val", the others "train".

        By image, never by caption. Which photo goes where depends on its id and the seed alone, so
        that photos that are added later move no other.
        """
        if not 0 < share < 1:
            raise ConfigError(f"the share to hold out is {share:g}; it must lie between 0 and 1")
        dealt = (
            replace(photo, split="val" if _draw(photo.id, seed) < share else "train")
            for photo in self.photos
        )
        return Manifest(tuple(dealt), self.texts)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest as JSON lines, whole or not at all; photos are named from its folder."""
    lines = [HEADER, *(_entry(photo, path) for photo in manifest.photos)]
    lines += [_without_defaults(Entry(captions=_captions([text]))) for text in manifest.texts]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names that are not UTF-8 stay as JSON's own escapes.
    atomic.write_bytes(path, text.encode("utf-8", "backslashreplace"))


def _entry(photo: Photo, path: Path) -> dict[str, object]:
    folder = os.path.relpath(photo.source.path.resolve(), path.resolve().parent)
    entry = Entry(
        id=photo.id,
        file=Path(folder).as_posix(),
        member=photo.source.member,
        split=photo.split,
        captions=_captions(photo.captions),
    )
    return _without_defaults(entry)


def _captions(lines: Iterable[CaptionLine]) -> tuple[Caption, ...]:
    return tuple(Caption(text=c.text, language=c.language, weight=c.weight) for c in lines)


def _without_defaults(entry: Entry) -> dict[str, object]:
    return {name: value for name, value in asdict(entry).items() if value != ""}


def _draw(photo: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{photo}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
