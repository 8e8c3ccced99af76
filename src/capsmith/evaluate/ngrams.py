"""N-grams of many captions at once, as arrays: counted one by one in Python they take minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

ORDERS: Final = 4
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each n-gram of one order stands in each line: int64 (m,) each, sorted by line.

    line: the line's number. ngram: below `size`, the same for equal n-grams. count: at least 1.
    """

    line: Ints
    ngram: Ints
    count: Ints
    size: int

    def split(self, line: int) -> tuple[Counts, Counts]:
        """Those of the lines before `line`, and those of the others, whose numbers start at 0."""
        cut = int(np.searchsorted(self.line, line))
        before = Counts(self.line[:cut], self.ngram[:cut], self.count[:cut], self.size)
        return before, Counts(self.line[cut:] - line, self.ngram[cut:], self.count[cut:], self.size)


def count_ngrams(lines: Sequence[Sequence[str]]) -> Iterator[Counts]:
    """The n-grams of tokenised lines: those of order 1, then 2, 3 and 4."""
    lengths = np.array([len(line) for line in lines], np.int64)
    numbers: dict[str, int] = {}
    every = (numbers.setdefault(token, len(numbers)) for line in lines for token in line)
    words = np.fromiter(every, np.int64, count=int(lengths.sum()))
    line_of = np.repeat(np.arange(len(lines)), lengths)
    # How many words each word and those after it are.
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))
    starts, ngrams, size = np.arange(len(words)), words, max(1, len(numbers))
    for order in range(1, ORDERS + 1):
        if order > 1:
            goes_on = left[starts] >= order
            starts = starts[goes_on]
            longer = ngrams[goes_on] * len(numbers) + words[starts + order - 1]
            known, ngrams = np.unique(longer, return_inverse=True)
            size = max(1, len(known))
        keys, count = np.unique(line_of[starts] * size + ngrams, return_counts=True)
        yield Counts(keys // size, keys % size, count, size)


def find(wanted: Ints, keys: Ints) -> Ints:
    """Where each wanted number stands in the sorted `keys`, -1 where it does not; int64 (m,)."""
    if not len(keys):
        return np.full(len(wanted), -1)
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[found] == wanted, found, -1)
