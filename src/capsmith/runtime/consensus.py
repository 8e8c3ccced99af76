"""Consensus re-ranking of several captions of one picture (Devlin et al. 2015)."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import TypeVar

from capsmith.runtime.rules import Hypothesis
from capsmith.types import Candidate

Captions = TypeVar("Captions", list[Hypothesis], list[Candidate])

_LONGEST_NGRAM = 4


def by_consensus(hypotheses: Captions) -> Captions:
    """The same captions, the one most like the others first.

    Devlin et al. 2015 ("Exploring nearest neighbor approaches for image captioning", section 3)
    take, of several captions, the one with the largest mean similarity to the rest. The similarity
    is CIDEr's without document frequencies: the mean over n = 1 to 4 of the cosine between counts
    of token n-grams. Equals stay in their order.
    """
    if len(hypotheses) < 3:
        return hypotheses
    counts = [_ngram_counts(hypothesis.token_ids) for hypothesis in hypotheses]
    votes = [
        sum(_similarity(mine, other) for other in counts if other is not mine) for mine in counts
    ]
    order = sorted(range(len(hypotheses)), key=lambda index: -votes[index])
    return [hypotheses[index] for index in order]


def _ngram_counts(tokens: tuple[int, ...]) -> list[Counter[tuple[int, ...]]]:
    """For n = 1 to 4, how often each n-gram occurs."""
    return [
        Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
        for n in range(1, _LONGEST_NGRAM + 1)
    ]


def _similarity(
    mine: list[Counter[tuple[int, ...]]], other: list[Counter[tuple[int, ...]]]
) -> float:
    return sum(map(_cosine, mine, other)) / _LONGEST_NGRAM


def _cosine(mine: Counter[tuple[int, ...]], other: Counter[tuple[int, ...]]) -> float:
    norm = sqrt(_squares(mine) * _squares(other))
    return sum(count * other[ngram] for ngram, count in mine.items()) / norm if norm else 0.0


def _squares(counts: Counter[tuple[int, ...]]) -> int:
    return sum(count * count for count in counts.values())
