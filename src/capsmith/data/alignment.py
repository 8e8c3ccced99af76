"""Tells rows whose captions belong to other photos, from the captions alone.

Captions of one photo share words, captions of two photos hardly do. Words are weighted by how
rare they are (inverse document frequency), a caption is a vector of length 1, and closeness is the
cosine. Where the rows are shuffled, a photo's captions are no closer to each other than to any
others; where they are shifted, each photo's last caption is closer to the next photo, or its first
one to the photo before. Both are judged over runs of photos: single careless captions, and series
of photos that look alike, are in every real file. A file with one caption a photo cannot be judged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsmith.data.manifest import Photo
from capsmith.data.rows import CaptionLine, Finding
from capsmith.data.words import words_of

Vector = dict[str, float]

_RUN: Final = 20
_SHIFT_RUN: Final = 40
# Of how many photos the captions are closer to each other than to another photo's: of nearly all
# in a real file, of half where the rows are shuffled.
_MIN_SHARE: Final = 0.65
# In real files the worst run of 20 photos keeps 0.35 of the distance between a photo's own
# captions and those of others; a shuffled run keeps none.
_MIN_CLOSENESS: Final = 0.2
# The worst run of 40 photos has 0.48 such captions where photos come in series; rows shifted by
# one or two give 0.62 to 1.
_MAX_SHIFTED: Final = 0.6


@dataclass(frozen=True, slots=True)
class _Group:
    """One photo with its captions of one file and language."""

    photo: str
    lines: Sequence[CaptionLine]


@dataclass(frozen=True, slots=True)
class _Closeness:
    """How close each photo's captions are to each other, and to those of another photo.

    `to_next` marks the photos whose last caption is closer to the next photo, `to_previous` those
    whose first one is closer to the photo before.
    """

    within: NDArray[np.float64]
    between: NDArray[np.float64]
    to_next: NDArray[np.bool_]
    to_previous: NDArray[np.bool_]


def misaligned(photos: Sequence[Photo]) -> list[Finding]:
    """A finding for each run of photos whose captions are not of one photo each."""
    findings = []
    for groups in _by_file(photos).values():
        judged = [group for group in groups if len(group.lines) > 1]
        if len(judged) >= _RUN:
            closeness = _measure(judged)
            findings += _findings(judged, closeness)
    return findings


def _by_file(photos: Sequence[Photo]) -> dict[tuple[Path, str], list[_Group]]:
    """The photos of each file and language, in the file's order."""
    found: dict[tuple[Path, str], list[_Group]] = {}
    for photo in photos:
        lines: dict[tuple[Path, str], list[CaptionLine]] = {}
        for line in photo.captions:
            lines.setdefault((line.place.path, line.language), []).append(line)
        for key, own in lines.items():
            found.setdefault(key, []).append(_Group(photo.id, own))
    return found


def _measure(groups: Sequence[_Group]) -> _Closeness:
    vectors = _vectors(groups)
    sums = [_sum(group) for group in vectors]
    count = len(groups)
    within, between = np.zeros(count), np.zeros(count)
    to_next, to_previous = np.zeros(count, bool), np.zeros(count, bool)
    for index, group in enumerate(vectors):
        size, far = len(group), (index + count // 2) % count
        # A caption's closeness to itself does not count; one without words has none.
        own = [(_dot(vector, sums[index]) - bool(vector)) / (size - 1) for vector in group]
        within[index] = sum(own) / size
        between[index] = _dot(sums[index], sums[far]) / (size * len(vectors[far]))
        if index + 1 < count:
            to_next[index] = _dot(group[-1], sums[index + 1]) > own[-1] * len(vectors[index + 1])
        if index:
            to_previous[index] = _dot(group[0], sums[index - 1]) > own[0] * len(vectors[index - 1])
    return _Closeness(within, between, to_next, to_previous)


def _vectors(groups: Sequence[_Group]) -> list[list[Vector]]:
    words = [[set(words_of(line.text)) for line in group.lines] for group in groups]
    frequency = Counter(word for group in words for caption in group for word in caption)
    total = sum(map(len, words))
    weight = {word: math.log((1 + total) / number) for word, number in frequency.items()}
    return [[_unit({word: weight[word] for word in caption}) for caption in g] for g in words]


def _unit(vector: Vector) -> Vector:
    length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
    return {word: value / length for word, value in vector.items()}


def _sum(vectors: Sequence[Vector]) -> Vector:
    total: Vector = {}
    for vector in vectors:
        for word, value in vector.items():
            total[word] = total.get(word, 0.0) + value
    return total


def _dot(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    if len(first) > len(second):
        first, second = second, first
    return sum(value * second[word] for word, value in first.items() if word in second)


def _findings(groups: Sequence[_Group], closeness: _Closeness) -> list[Finding]:
    runs = np.convolve(closeness.within, np.full(_RUN, 1 / _RUN), "valid")
    usual, between = float(np.quantile(runs, 0.9)), float(closeness.between.mean())
    closer = closeness.within > closeness.between
    is_told_apart = closeness.within != closeness.between
    if is_told_apart.sum() >= _RUN and closer.sum() < _MIN_SHARE * is_told_apart.sum():
        bad = np.ones(len(groups), bool)
    else:
        least = between + _MIN_CLOSENESS * (usual - between)
        bad = _covered(runs < least, _RUN, len(groups))
        for marked in (closeness.to_next, closeness.to_previous):
            if len(groups) >= _SHIFT_RUN:
                shifted = np.convolve(marked, np.full(_SHIFT_RUN, 1 / _SHIFT_RUN), "valid")
                bad |= _covered(shifted > _MAX_SHIFTED, _SHIFT_RUN, len(groups))
    findings = []
    for is_bad, numbered in groupby(
        zip(bad, range(len(groups)), strict=True), lambda e: bool(e[0])
    ):
        members = [index for _, index in numbered]
        if is_bad:
            own = float(closeness.within[members].mean())
            numbers = f"closeness {own:.2f} within a photo, {between:.2f} between photos"
            findings.append(_finding([groups[index] for index in members], numbers))
    return findings


def _finding(groups: Sequence[_Group], numbers: str) -> Finding:
    first, last = groups[0], groups[-1]
    wrong = (
        f"the captions of {len(groups)} photos, {first.photo} to {last.photo}"
        f" ({last.lines[-1].place}), look like those of other photos: {numbers}"
    )
    return Finding(
        kind="misaligned",
        place=first.lines[0].place,
        message=wrong,
        drops_photos=tuple(group.photo for group in groups),
    )


def _covered(runs: NDArray[np.bool_], length: int, count: int) -> NDArray[np.bool_]:
    """The photos that lie in one of the runs (of `length` photos) that are marked."""
    covered = np.zeros(count, bool)
    for start in np.flatnonzero(runs):
        covered[start : start + length] = True
    return covered
