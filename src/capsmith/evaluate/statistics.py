"""How far a score would move had other photos been drawn: bootstrap intervals over photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsmith.errors import DataError
from capsmith.evaluate.lexical import bleu_from_statistics

RESAMPLES = 1000
_COUNTS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Interval:
    """A score of a corpus and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def resample_counts(
    photos: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> npt.NDArray[np.int64]:
    """How often each photo is drawn, int64 (resamples, photos); each row sums to `photos`.

    The same number of photos and seed give the same draws, so that two systems can be compared
    draw by draw. Raises DataError when there is no photo.
    """
    if photos < 1:
        raise DataError("no photos: an interval needs at least one scored photo")
    generator = np.random.default_rng(seed)
    return generator.multinomial(photos, np.full(photos, 1 / photos), size=resamples)


def resampled_sums(
    columns: npt.NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Sums of float64 (photos, k) over the photos of each draw, float64 (resamples, k).

    Draws are those of `resample_counts`, made a few at a time: memory does not grow with the
    number of photos times that of draws.
    """
    photos = len(columns)
    if photos < 1:
        raise DataError("no photos: an interval needs at least one scored photo")
    generator, shares = np.random.default_rng(seed), np.full(photos, 1 / photos)
    at_once = max(1, _COUNTS_AT_ONCE // photos)
    sizes = [min(at_once, resamples - first) for first in range(0, resamples, at_once)]
    return np.concatenate([generator.multinomial(photos, shares, size=n) @ columns for n in sizes])


def mean_interval(
    per_photo: npt.NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap (Efron, 1979) of the mean of float64 (photos,).

    For CIDEr-D the document frequencies thus stay those of all photos: a draw repeats photos, and
    frequencies counted over repeats would measure another score.
    """
    sums = resampled_sums(per_photo[:, None], resamples=resamples, seed=seed)
    return percentiles(float(np.mean(per_photo)), sums[:, 0] / len(per_photo))


def paired_difference(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """How much higher the mean of `second` is, by a paired bootstrap (Koehn, EMNLP 2004).

    first, second: float64 (photos,), scores of two systems on the same photos: each draw takes the
    same photos of both. Raises DataError when the two differ in length.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} scores: compare the same photos")
    return mean_interval(second - first, resamples=resamples, seed=seed)


def bleu_intervals(
    statistics: npt.NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, ...]:
    """Percentile bootstrap of corpus BLEU-1 to BLEU-4, from `lexical.bleu_statistics`.

    statistics: int64 (photos, 10). Each draw is scored as a corpus of its own.
    """
    sums = resampled_sums(statistics.astype(np.float64), resamples=resamples, seed=seed)
    values = bleu_from_statistics(statistics.sum(axis=0))
    draws = bleu_from_statistics(sums)
    return tuple(percentiles(float(v), column) for v, column in zip(values, draws.T, strict=True))


def percentiles(value: float, draws: npt.NDArray[np.float64]) -> Interval:
    """A score with the bounds between which 95 % of its draws lie, float64 (resamples,)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))
