"""CIDEr of many captions at once: CIDEr-D, the community's number, and CIDEr as first defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from capsmith.evaluate.ngrams import ORDERS, Counts, Ints, count_ngrams, find

Floats = npt.NDArray[np.float64]

SIGMA: Final = 6.0
SCALE: Final = 10.0


def cider_scores(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    photos: Ints,
    *,
    is_plain: bool = False,
) -> Floats:
    """CIDEr of tokenised captions, float64 (n,): caption i is of photo `photos[i]`.

    candidates: n captions, tokens joined by spaces. references: for each photo its captions, at
    least one. photos: int64 (n,); a photo may have several candidates or none: document
    frequencies are counted over all photos of `references`.

    CIDEr-D (Vedantam, Zitnick, Parikh, CVPR 2015, section 7) clips counts, punishes a difference
    in length by a Gaussian of sigma 6, and is scaled: 0 to 10. `is_plain` gives CIDEr, the mean
    cosine over references and orders 1 to 4 (section 3), without these three: 0 to 1. The paper
    stems the words first; here they are as tokenised.
    """
    lines = [line.split() for line in candidates]
    lines += [line.split() for sentences in references for line in sentences]
    pairs = _Pairs.of(photos, np.array([len(sentences) for sentences in references], np.int64))
    similarity = np.zeros(len(pairs.reference))
    for counts in count_ngrams(lines):
        mine, others = counts.split(len(candidates))
        idf = _inverse_document_frequencies(others, pairs.owner, len(references))
        similarity += _cosines(mine, others, idf, pairs, is_clipped=not is_plain)
    similarity /= ORDERS
    if not is_plain:
        # pycocoevalcap measures length in bigrams: empty and one-word captions are as long.
        lengths = np.array([max(0, len(line) - 1) for line in lines], np.int64)
        own, other = np.split(lengths, [len(candidates)])
        difference = own[pairs.candidate] - other[pairs.reference]
        similarity *= SCALE * np.exp(-(difference**2) / (2 * SIGMA**2))
    return np.bincount(pairs.candidate, similarity, len(photos)) / pairs.references_each


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Each candidate beside each reference of its photo, in this order.

    candidate, reference: int64 (pairs,). first, references_each: int64 (n,), a candidate's first
    pair and how many it has. owner: int64 (references,), the photo of each.
    """

    candidate: Ints
    reference: Ints
    first: Ints
    references_each: Ints
    owner: Ints

    @classmethod
    def of(cls, photos: Ints, sentences: Ints) -> _Pairs:
        each = sentences[photos]
        first = np.cumsum(each) - each
        candidate = np.repeat(np.arange(len(photos)), each)
        place = np.arange(len(candidate)) - first[candidate]
        reference = (np.cumsum(sentences) - sentences)[photos[candidate]] + place
        return cls(
            candidate, reference, first, each, np.repeat(np.arange(len(sentences)), sentences)
        )


def _inverse_document_frequencies(references: Counts, owner: Ints, photos: int) -> Floats:
    """log(photos / photos whose references have the n-gram), float64 (size,)."""
    per_photo = np.unique(owner[references.line] * references.size + references.ngram)
    frequencies = np.bincount(per_photo % references.size, minlength=references.size)
    idf: Floats = np.log(photos) - np.log(np.maximum(1, frequencies))
    return idf


def _cosines(
    mine: Counts, others: Counts, idf: Floats, pairs: _Pairs, *, is_clipped: bool
) -> Floats:
    """Cosine of the weighted n-grams of each pair, float64 (pairs,); 0 where one has none."""
    each = pairs.references_each[mine.line]
    row = np.repeat(np.arange(len(mine.line)), each)
    pair = np.repeat(pairs.first[mine.line] - (np.cumsum(each) - each), each) + np.arange(len(row))
    wanted = pairs.reference[pair] * others.size + mine.ngram[row]
    found = find(wanted, others.line * others.size + others.ngram)
    is_common = found >= 0
    row, pair, found = row[is_common], pair[is_common], found[is_common]
    own, other = mine.count[row], others.count[found]
    overlap = (np.minimum(own, other) if is_clipped else own) * other * idf[mine.ngram[row]] ** 2
    products = np.bincount(pair, overlap, len(pairs.candidate))
    norms = _norms(mine, idf, len(pairs.first))[pairs.candidate]
    norms *= _norms(others, idf, len(pairs.owner))[pairs.reference]
    return np.divide(products, norms, out=np.zeros(len(products)), where=norms > 0)


def _norms(counts: Counts, idf: Floats, lines: int) -> Floats:
    squares = (counts.count * idf[counts.ngram]) ** 2
    norms: Floats = np.sqrt(np.bincount(counts.line, squares, lines))
    return norms
