"""What a set of captions is like, whatever the photos: its words, and how often it repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from capsmith.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """distinct_1, distinct_2: different words, and pairs of words, over all of them (Li et al.,
    NAACL 2016). mean_words: tokens a caption. vocabulary: different tokens. identical_share: the
    share of captions that another photo has too, word for word; near 1 the captioner has collapsed.
    commonest, commonest_count: the caption that most photos have, tokenised, and how many have it.
    """

    distinct_1: float
    distinct_2: float
    mean_words: float
    vocabulary: int
    identical_share: float
    commonest: str
    commonest_count: int


def diversity(captions: Sequence[str]) -> Diversity:
    """Measure tokenised captions, one a photo. Raises `DataError` where there is none."""
    if not captions:
        raise DataError("no captions: nothing to measure")
    lines = [caption.split() for caption in captions]
    words = [word for line in lines for word in line]
    pairs = [pair for line in lines for pair in pairwise(line)]
    counts = Counter(captions)
    commonest, commonest_count = counts.most_common(1)[0]
    return Diversity(
        distinct_1=len(set(words)) / max(1, len(words)),
        distinct_2=len(set(pairs)) / max(1, len(pairs)),
        mean_words=len(words) / len(lines),
        vocabulary=len(set(words)),
        identical_share=sum(n for n in counts.values() if n > 1) / len(captions),
        commonest=commonest,
        commonest_count=commonest_count,
    )
