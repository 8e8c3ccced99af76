"""Recall@k: how often what belongs together is found among the k nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsmith.errors import DataError

AT = (1, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Recall at 1, 5 and 10 both ways, as shares, and what chance would give.

    photo: of texts, each looking for its photo. text: of photos, each looking for any of its texts.
    """

    photos: int
    texts: int
    photo: tuple[float, float, float]
    text: tuple[float, float, float]
    random_photo: tuple[float, float, float]
    random_text: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def retrieval(
    photos: NDArray[np.float32], texts: NDArray[np.float32], owners: Sequence[int]
) -> Retrieval:
    """Recall among all these photos and texts.

    photos: float32 (p, d); texts: float32 (t, d), both of length 1; owners: for each text the row
    of its photo. What is as near as the right one counts as nearer, so that a tower that gives the
    same vector for everything finds nothing. Raises `DataError` for a photo without a text.
    """
    owner = np.asarray(owners, np.int64)
    missing = set(range(len(photos))) - set(owner.tolist())
    if missing or not len(texts):
        raise DataError(f"photo {min(missing, default=0)} has no text to be found by")
    cosines = texts @ photos.T
    rows = np.arange(len(texts))
    mine = cosines[rows, owner]
    photo_ranks = (cosines >= mine[:, None]).sum(1) - 1
    best = np.full(len(photos), -np.inf, np.float32)
    np.maximum.at(best, owner, mine)
    cosines[rows, owner] = -np.inf  # a photo's other texts are no rivals
    text_ranks = (cosines >= best).sum(0)
    counts = np.bincount(owner, minlength=len(photos))
    return Retrieval(
        photos=len(photos),
        texts=len(texts),
        photo=_shares(photo_ranks),
        text=_shares(text_ranks),
        random_photo=_triple([min(1.0, k / len(photos)) for k in AT]),
        random_text=_triple([_chance(counts, len(texts), k) for k in AT]),
    )


def _shares(ranks: NDArray[np.int64]) -> tuple[float, float, float]:
    return _triple([float((ranks < k).mean()) for k in AT])


def _chance(counts: NDArray[np.int64], texts: int, k: int) -> float:
    """Mean chance that k texts, drawn without replacement, hold one of a photo's `counts`."""
    misses = np.ones(len(counts))
    for drawn in range(min(k, texts)):
        misses *= np.clip((texts - counts - drawn) / (texts - drawn), 0, 1)
    return float((1 - misses).mean())


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
