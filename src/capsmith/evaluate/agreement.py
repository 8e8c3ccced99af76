"""How well a metric agrees with people: rank and linear correlation of scores and judgements."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsmith.errors import DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Correlations of a metric with judgements, each -1 to 1; NaN where one of them never varies.

    With C and D concordant and discordant pairs of n captions (pairs tied in either count as
    neither), T1 and T2 the pairs tied in the first and in the second:

    kendall_b: (C - D) / sqrt((n(n-1)/2 - T1) (n(n-1)/2 - T2)) (Kendall, 1945).
    kendall_c: 2 (C - D) m / (n^2 (m - 1)), m the smaller number of distinct values (Stuart, 1953);
        what papers on captions report for judgements of few grades, usually times 100.
    spearman: Pearson's correlation of the ranks, ties sharing their mean rank.
    pearson: covariance over the product of both standard deviations.
    """

    kendall_b: float
    kendall_c: float
    spearman: float
    pearson: float


def agreement(scores: Floats, judgements: Floats) -> Agreement:
    """Correlate scores with judgements of the same captions, float64 (n,) each.

    Raises `DataError` where they differ in length, are fewer than two, or one is not finite.
    """
    if len(scores) != len(judgements):
        raise DataError(f"{len(scores)} scores for {len(judgements)} judgements: give one for each")
    if len(scores) < 2:
        raise DataError("agreement needs two judgements or more")
    if not (np.isfinite(scores).all() and np.isfinite(judgements).all()):
        raise DataError("a score or a judgement is not a finite number; leave it out")
    # Sums in another order differ in the last digits, which would part scores that are tied.
    scores = np.round(scores, 12)
    tau_b, tau_c = _kendall(scores, judgements)
    return Agreement(
        kendall_b=tau_b,
        kendall_c=tau_c,
        spearman=_pearson(_ranks(scores), _ranks(judgements)),
        pearson=_pearson(scores, judgements),
    )


def _kendall(first: Floats, second: Floats) -> tuple[float, float]:
    """tau-b and tau-c; discordant pairs are counted by insertion (Knight, 1966)."""
    pairs = sorted(zip(first.tolist(), second.tolist(), strict=True))
    seen: list[float] = []
    discordant = 0
    for _, value in pairs:
        discordant += len(seen) - bisect_right(seen, value)
        insort(seen, value)
    every = math.comb(len(pairs), 2)
    ones, others = Counter(first.tolist()), Counter(second.tolist())
    tied_first, tied_second, tied_both = map(_tied, (ones, others, Counter(pairs)))
    difference = every - tied_first - tied_second + tied_both - 2 * discordant
    untied = (every - tied_first) * (every - tied_second)
    fewest = min(len(ones), len(others))
    if not untied:
        return math.nan, math.nan
    tau_c = 2 * difference * fewest / (len(pairs) ** 2 * (fewest - 1))
    return difference / math.sqrt(untied), tau_c


def _tied(counts: Counter[float] | Counter[tuple[float, float]]) -> int:
    return sum(math.comb(count, 2) for count in counts.values())


def _ranks(values: Floats) -> Floats:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(count) - (count - 1) / 2
    return np.asarray(mean_ranks[group], np.float64)


def _pearson(first: Floats, second: Floats) -> float:
    one, other = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / spread if spread else math.nan
