"""What is wrong with data sets, before a captioner learns it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capsmith.data.alignment import misaligned
from capsmith.data.duplicates import Hashes, near_pairs, photo_hash
from capsmith.data.formats import find_captions
from capsmith.data.formats.photo_files import orphans
from capsmith.data.manifest import Manifest, Photo
from capsmith.data.rows import CaptionLine, Finding
from capsmith.data.sources import DataSource, read_data
from capsmith.data.splits import SPLITS
from capsmith.data.watch import Watch, unwatched
from capsmith.data.words import words_of
from capsmith.errors import ImageError
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.read_ahead import read_ahead
from capsmith.runtime.session import usable_cpus

MAX_WORDS = 100
_HASHED_AT = (32, 32)
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, what is wrong with it in the order of the files, and a clean copy."""

    manifest: Manifest
    findings: tuple[Finding, ...]
    clean: Manifest


def check(
    sources: Sequence[DataSource],
    *,
    base: Path | None = None,
    max_words: int = MAX_WORDS,
    opens_photos: bool = True,
    watch: Watch = unwatched,
) -> Checked:
    """Read data sets as `read_data` does and look for what is wrong.

    max_words: what makes a caption over-long; a Chinese or Japanese character is a word.
    opens_photos: whether every photo is decoded, to find unreadable ones and near-duplicates.
    watch: is given the photos while they are opened, and how many they are, to show progress.

    Raises `DataError` for what cannot be read at all, such as an absent file.
    """
    findings: list[Finding] = []
    manifest = read_data(sources, base=base, on_finding=findings.append)
    findings += _orphans(sources, base or Path())
    for line in _lines(manifest):
        findings += _caption_findings(line, max_words)
    findings += misaligned(manifest.photos)
    findings += _leaks(manifest)
    if opens_photos:
        findings += _photo_findings(manifest.photos, watch)
    findings.sort(key=lambda finding: finding.place)
    return Checked(manifest, tuple(findings), _cleaned(manifest, findings))


def _orphans(sources: Sequence[DataSource], base: Path) -> Iterator[Finding]:
    """Photos and files of captions that lie alone in a folder of pairs."""
    for source in sources:
        place = base / source.path
        if place.is_dir() and source.format in ("", "sidecar"):
            folder, name = find_captions(place)
            if source.format or name == "sidecar":
                yield from orphans(folder)


def _lines(manifest: Manifest) -> Iterator[CaptionLine]:
    for photo in manifest.photos:
        yield from photo.captions
    yield from manifest.texts


def _caption_findings(line: CaptionLine, max_words: int) -> Iterator[Finding]:
    repaired = _repaired(line.text)
    broken = next((c for c in line.text if c == "\ufffd" or unicodedata.category(c) == "Cc"), "")
    if repaired:
        wrong = f"UTF-8 that was read as Windows-1252: {line.text!r} is {repaired!r}"
        yield Finding(
            kind="encoding", place=line.place, message=wrong, drops_line=line, new_text=repaired
        )
    elif broken:
        wrong = f"has the character U+{ord(broken):04X}, which no caption has"
        yield Finding(kind="encoding", place=line.place, message=wrong, drops_line=line)
    count = len(words_of(line.text))
    if count > max_words:
        wrong = f"has {count} words, more than {max_words}"
        yield Finding(kind="long", place=line.place, message=wrong, drops_line=line)


def _repaired(text: str) -> str:
    """Text whose UTF-8 bytes were once read as Windows-1252, mended; else ""."""
    if text.isascii():
        return ""
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return ""


def _leaks(manifest: Manifest) -> Iterator[Finding]:
    """Texts for training that are a held-out photo's caption, but for case and punctuation."""
    held_out = {
        tuple(words_of(line.text)): (photo, line)
        for photo in (manifest.photos if manifest.texts else ())
        if photo.split in ("val", "test")
        for line in photo.captions
    }
    for text in manifest.texts:
        found = held_out.get(tuple(words_of(text.text)))
        if found:
            photo, line = found
            wrong = (
                f"is a caption of {photo.id}, which is held out for {photo.split} ({line.place})"
            )
            yield Finding(kind="leak", place=text.place, message=wrong, drops_line=text)


def _photo_findings(photos: Sequence[Photo], watch: Watch) -> Iterator[Finding]:
    hashes: dict[str, list[tuple[Photo, Hashes]]] = {}
    opened = read_ahead(_hash_of, photos, batch_size=_AT_ONCE, workers=min(usable_cpus(), 4))
    answers = (future for batch in opened for future in batch)
    for photo, future in watch(zip(photos, answers, strict=True), len(photos)):
        try:
            found = future.result()
            if found is not None and photo.split:
                hashes.setdefault(photo.split, []).append((photo, found))
        except ImageError as error:
            place = photo.captions[0].place
            yield Finding(
                kind="unreadable", place=place, message=str(error), drops_photos=(photo.id,)
            )
    yield from _duplicates(hashes)


def _hash_of(photo: Photo) -> Hashes | None:
    return photo_hash(open_picture(photo.source.picture(), min_side=_HASHED_AT))


def _duplicates(hashes: dict[str, list[tuple[Photo, Hashes]]]) -> Iterator[Finding]:
    there = [split for split in SPLITS if split in hashes]
    for number, first in enumerate(there):
        for second in there[number + 1 :]:
            rows = [np.stack([found for _, found in hashes[split]]) for split in (first, second)]
            for one, other in near_pairs(*rows):
                photo, held_out = hashes[first][one][0], hashes[second][other][0]
                wrong = (
                    f"{photo.id} ({first}) is nearly the same photo as {held_out.id} ({second},"
                    f" {held_out.captions[0].place})"
                )
                place = photo.captions[0].place
                yield Finding(
                    kind="duplicate", place=place, message=wrong, drops_photos=(photo.id,)
                )


def _cleaned(manifest: Manifest, findings: Sequence[Finding]) -> Manifest:
    gone = {photo for finding in findings for photo in finding.drops_photos}
    new_texts = {f.drops_line: f.new_text for f in findings if f.drops_line is not None}

    def cleaned(lines: Sequence[CaptionLine]) -> tuple[CaptionLine, ...]:
        mended = (replace(line, text=new_texts.get(line, line.text)) for line in lines)
        return tuple(line for line in mended if line.text)

    photos = []
    for photo in manifest.photos:
        captions = cleaned(photo.captions)
        if captions and photo.id not in gone:
            photos.append(replace(photo, captions=captions))
    return Manifest(tuple(photos), cleaned(manifest.texts))


def kinds_of(findings: Sequence[Finding]) -> str:
    """How many findings there are of each kind, for instance `2 missing, 1 empty`."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(f"{number} {kind}" for kind, number in counts.most_common())
