"""Which captions of which photos a step reads: a function of the data and the seed alone.

Nothing of it has to be kept in a checkpoint: a run that goes on at step n reads what a run that
never stopped reads there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from capsmith.data.manifest import Photo
from capsmith.errors import DataError
from capsmith.training.vocabulary import CaptionTokens

_POOL = 64
"""Batches that are made of captions of like length together."""


@dataclass(frozen=True, slots=True)
class Line:
    """One caption as token ids, without start and end; a cut one does not show how it ends.

    detail: "short", "normal" or "long", beside other captions of its language.
    """

    photo: int
    ids: tuple[int, ...]
    is_cut: bool
    language: str
    weight: float
    detail: str = "normal"


@dataclass(frozen=True, slots=True)
class Examples:
    """The photos of a split and all their captions; `of_photo` are indices into `lines`."""

    photos: tuple[Photo, ...]
    lines: tuple[Line, ...]
    of_photo: tuple[tuple[int, ...], ...]


def tokenise(
    photos: Sequence[Photo], tokens: CaptionTokens, *, max_tokens: int, positions: int | None
) -> Examples:
    """Captions as token ids, those over `max_tokens` (0: none) cut.

    positions: how many tokens, end token included, the language model can read after prefix and
    start. Raises `DataError` for a caption that is longer, and where there is no photo.
    """
    if not photos:
        raise DataError("no photo to train on; check the splits of the data")
    lines: list[Line] = []
    of_photo = []
    for index, photo in enumerate(photos):
        first = len(lines)
        for caption in photo.captions:
            ids = tokens.encode(caption.text, caption.language)
            is_cut = 0 < max_tokens < len(ids)
            ids = ids[:max_tokens] if is_cut else ids
            if positions is not None and len(ids) + 1 > positions:
                raise DataError(
                    f"{caption.place}: a caption of {len(ids)} tokens, and the language model has"
                    f" room for {positions - 1} after the prefix; cut captions by data.max_tokens"
                )
            lines.append(Line(index, ids, is_cut, caption.language, caption.weight))
        of_photo.append(tuple(range(first, len(lines))))
    return Examples(tuple(photos), tuple(lines), tuple(of_photo))


Bounds = Mapping[str, tuple[float, float]]
"""Language -> the lengths, in tokens, up to which captions are short, and up to which normal."""


def thirds(examples: Examples) -> Bounds:
    """Bounds that part the captions of each language into thirds, as nearly as lengths allow."""
    lengths: dict[str, list[int]] = {}
    for line in examples.lines:
        lengths.setdefault(line.language, []).append(len(line.ids))
    return {
        language: (float(np.quantile(own, 1 / 3)), float(np.quantile(own, 2 / 3)))
        for language, own in lengths.items()
    }


def detail_of(length: int, language: str, bounds: Bounds) -> str:
    """How long a caption of so many tokens is; "normal" in a language without bounds."""
    short, normal = bounds.get(language, (-1.0, float("inf")))
    return "short" if length <= short else "normal" if length <= normal else "long"


def with_details(examples: Examples, bounds: Bounds) -> Examples:
    """The same captions, each with its detail."""
    lines = (
        replace(line, detail=detail_of(len(line.ids), line.language, bounds))
        for line in examples.lines
    )
    return replace(examples, lines=tuple(lines))


@dataclass(frozen=True, slots=True)
class Draw:
    """What one batch reads: photos (B), captions (N), and the position of each one's photo."""

    photos: tuple[int, ...]
    lines: tuple[int, ...]
    owner: tuple[int, ...]


class Order:
    """The batches of all steps.

    Every caption is read once an epoch, or every photo with some of its captions where
    `captions_a_photo` is not 0; those of other weight accordingly. Captions of like length go
    together, which is what padding costs.
    """

    def __init__(self, examples: Examples, *, batch: int, captions_a_photo: int, seed: int):
        self.examples, self.captions_a_photo, self.seed = examples, captions_a_photo, seed
        lines = examples.lines
        if captions_a_photo:
            weights = [sum(lines[i].weight for i in own) / len(own) for own in examples.of_photo]
            self._lengths = np.zeros(len(weights), np.int64)
        else:
            weights = [line.weight for line in lines]
            self._lengths = np.array([len(line.ids) for line in lines])
        self._ends = np.cumsum(weights) / max(weights)
        self.count = max(1, round(float(self._ends[-1])))
        self.batch = min(batch, self.count)
        self._epoch = lru_cache(maxsize=2)(self._batches)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the data; what does not fill one is left for other epochs."""
        return self.count // self.batch

    def draw(self, step: int) -> Draw:
        """What batch number `step` reads."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self._epoch(epoch)[position]
        if not self.captions_a_photo:
            lines = tuple(int(i) for i in chosen)
            photos = tuple(dict.fromkeys(self.examples.lines[i].photo for i in lines))
            place = {photo: position for position, photo in enumerate(photos)}
            return Draw(photos, lines, tuple(place[self.examples.lines[i].photo] for i in lines))
        rng = np.random.default_rng((self.seed, 1, step))
        photos = tuple(int(i) for i in chosen)
        drawn: list[int] = []
        owner: list[int] = []
        for position, photo in enumerate(photos):
            own = self.examples.of_photo[photo]
            size = min(self.captions_a_photo, len(own))
            weights = np.array([self.examples.lines[i].weight for i in own])
            drawn += (
                int(i) for i in rng.choice(own, size, replace=False, p=weights / weights.sum())
            )
            owner += [position] * size
        return Draw(photos, tuple(drawn), tuple(owner))

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, 0, epoch))
        # Systematic sampling: with equal weights everything comes exactly once.
        marks = (np.arange(self.count) + rng.random()) * (self._ends[-1] / self.count)
        chosen = np.minimum(np.searchsorted(self._ends, marks, side="right"), len(self._ends) - 1)
        shuffled = rng.permutation(chosen)
        pool = self.batch * _POOL
        batches: list[NDArray[np.int64]] = []
        for first in range(0, len(shuffled), pool):
            part = shuffled[first : first + pool]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        full = [part for part in batches if len(part) == self.batch]
        return [full[i] for i in rng.permutation(len(full))]
