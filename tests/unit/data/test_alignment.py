"""Misaligned rows are told from aligned ones, on captions that people wrote."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from capsmith.data.alignment import misaligned
from capsmith.data.formats import find_captions, read_rows
from capsmith.data.manifest import Photo
from capsmith.data.photos import PhotoBytes
from capsmith.data.rows import CaptionLine, Finding, Place, refuse
from tests.datasets import SHARED, made_up_rows

needs_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the public data sets are not beside this tree"
)


@cache
def captions(name: str) -> tuple[tuple[str, str], ...]:
    """(photo, caption) of every row of a published file, a photo's captions one after another."""
    path, kind = find_captions(SHARED / name)
    pairs = [(row.photo, row.text) for row in read_rows(path, kind, refuse, columns={})]
    first = {photo: number for number, (photo, _) in reversed(list(enumerate(pairs)))}
    return tuple(sorted(pairs, key=lambda pair: first[pair[0]]))


def judged(pairs: Sequence[tuple[str, str]]) -> list[Finding]:
    lines: dict[str, list[CaptionLine]] = {}
    for number, (photo, text) in enumerate(pairs, start=2):
        line = CaptionLine(text=text, language="en", place=Place(Path("captions.txt"), number))
        lines.setdefault(photo, []).append(line)
    nowhere = PhotoBytes(Path("photo.jpg"))
    return misaligned(
        [Photo(id=name, source=nowhere, captions=tuple(own)) for name, own in lines.items()]
    )


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "flickr8k/captions.txt",
        "flickr8k/captions.de.csv",
        "coco/captions.json",
        "coco/one_caption.csv",
    ],
)
def test_published_files_are_not_flagged(name: str) -> None:
    assert judged(captions(name)) == []


@needs_data
def test_the_shifted_run_in_the_published_flickr8k_cn_is_found() -> None:
    """Its fifth captions stand three photos too early: "a couple eats corn" at a dog's photo."""
    (finding,) = judged(captions("flickr8k/flickr8kzhc.caption.txt"))
    assert {"248646530_03c6284759.jpg", "251586160_a31b187a37.jpg"} <= set(finding.drops_photos)
    assert len(finding.drops_photos) < 100


def some_rows() -> tuple[list[str], list[str]]:
    pairs = captions("flickr8k/captions.txt")[: 5 * 1500]
    return [photo for photo, _ in pairs], [text for _, text in pairs]


@needs_data
def test_shuffled_rows_are_flagged_as_a_whole() -> None:
    photos, texts = some_rows()
    random.Random(1).shuffle(texts)
    (finding,) = judged(list(zip(photos, texts, strict=True)))
    assert finding.kind == "misaligned"
    assert finding.place.line == 2
    assert len(finding.drops_photos) == 1500


@needs_data
def test_a_shuffled_part_is_found_where_it_is() -> None:
    photos, texts = some_rows()
    part = texts[2000:3000]
    random.Random(2).shuffle(part)
    texts[2000:3000] = part
    (finding,) = judged(list(zip(photos, texts, strict=True)))
    assert abs(finding.place.line - 2002) <= 5 * 20
    assert abs(len(finding.drops_photos) - 200) <= 2 * 20


@needs_data
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_shifted_from_some_line_on_are_flagged(rows: int) -> None:
    photos, texts = some_rows()
    texts[2500:] = [*texts[2500 + rows :], *texts[2500 : 2500 + rows]]
    findings = judged(list(zip(photos, texts, strict=True)))
    flagged = {photo for finding in findings for photo in finding.drops_photos}
    aligned, shifted = set(photos[:2300]), set(photos[2500:])
    assert not flagged & aligned
    assert len(flagged & shifted) > 0.9 * len(shifted)


@needs_data
def test_one_caption_a_photo_cannot_be_judged() -> None:
    _, texts = some_rows()
    random.Random(3).shuffle(texts)
    assert judged([(f"{n}.jpg", text) for n, text in enumerate(texts[:200])]) == []


def test_made_up_rows_are_told_apart() -> None:
    names, texts = made_up_rows(100)
    assert judged(list(zip(names, texts, strict=True))) == []
    shifted = [*texts[1:], texts[0]]
    (finding,) = judged(list(zip(names, shifted, strict=True)))
    assert len(finding.drops_photos) > 90
    random.Random(1).shuffle(texts)
    (finding,) = judged(list(zip(names, texts, strict=True)))
    assert len(finding.drops_photos) == 100
    assert judged([("a.jpg", "..."), ("a.jpg", "!")] * 40) == []
