"""Scores that compare the words of captions with those of references: CIDEr-D, BLEU, ROUGE-L.

All three give the community's numbers, those of the package pycocoevalcap, including its corner
cases. The corpus functions take captions that are tokenised already, tokens joined by spaces (see
`capsmith.evaluate.tokenize`); `CiderD` takes sequences of any hashable tokens, so that it serves
as a reward on token ids too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from capsmith.errors import DataError
from capsmith.evaluate.cider import SCALE, SIGMA, cider_scores
from capsmith.evaluate.ngrams import ORDERS, Counts, Ints, count_ngrams, find

Tokens = Sequence[Hashable]
Ngram = tuple[Hashable, ...]
Postings = tuple[tuple[int, int], ...]

_ROUGE_BETA = 1.2
# pycocoevalcap's guards against division by zero; they show in the score of tiny corpora.
_BLEU_TINY, _BLEU_SMALL = 1e-15, 1e-9


def _ngrams(tokens: Tokens, order: int) -> Iterable[Ngram]:
    return zip(*(tokens[start:] for start in range(order)), strict=False)


def _cider_length(tokens: Tokens) -> int:
    # pycocoevalcap measures length in bigrams, which makes empty and one-word captions equal.
    return max(0, len(tokens) - 1)


@dataclass(frozen=True, slots=True)
class _PhotoReferences:
    """One photo's references: where each n-gram stands, and what each reference is divided by.

    postings: n-gram -> ((reference, how often), ...); inverse_norms: ORDERS rows, one per
    reference, 0 where no n-gram of that order has weight; lengths: one per reference.
    """

    postings: dict[Ngram, Postings]
    inverse_norms: tuple[tuple[float, ...], ...]
    lengths: tuple[int, ...]


class CiderD:
    """CIDEr-D (Vedantam, Zitnick, Parikh, CVPR 2015) against fixed references.

    Document frequencies are counted over the photos of `references`, once; after that a score
    takes some tens of microseconds, whatever the number of photos. sigma is 6, orders are 1 to 4,
    counts are clipped, and the scale is 10 as in pycocoevalcap.

    references: for each photo its token sequences, at least one; tokens are words or ids.
    Raises DataError when there is no photo, or one without a reference.
    """

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        if not references:
            raise DataError("no references: CIDEr-D needs at least one photo with a caption")
        for photo, sentences in enumerate(references):
            if not sentences:
                raise DataError(f"photo {photo} has no reference: give it one or leave it out")
        self._idf = _inverse_document_frequencies(references)
        self._unseen_idf = math.log(len(references))
        known: dict[Ngram, Ngram] = {ngram: ngram for ngram in self._idf}
        pool: dict[Postings, Postings] = {}
        self._photos = [self._index(sentences, known, pool) for sentences in references]

    def __len__(self) -> int:
        """Number of photos."""
        return len(self._photos)

    def _index(
        self,
        sentences: Sequence[Tokens],
        known: dict[Ngram, Ngram],
        pool: dict[Postings, Postings],
    ) -> _PhotoReferences:
        """Equal keys and postings are one object: photos repeat each other's n-grams."""
        found: dict[Ngram, list[tuple[int, int]]] = {}
        inverse_norms: list[list[float]] = [[] for _ in range(ORDERS)]
        for number, tokens in enumerate(sentences):
            for order in range(ORDERS):
                squared = 0.0
                for ngram, count in Counter(_ngrams(tokens, order + 1)).items():
                    squared += (count * self._idf[ngram]) ** 2
                    found.setdefault(known[ngram], []).append((number, count))
                inverse_norms[order].append(1 / math.sqrt(squared) if squared else 0.0)
        shared = ((ngram, tuple(postings)) for ngram, postings in found.items())
        return _PhotoReferences(
            postings={ngram: pool.setdefault(postings, postings) for ngram, postings in shared},
            inverse_norms=tuple(tuple(row) for row in inverse_norms),
            lengths=tuple(_cider_length(tokens) for tokens in sentences),
        )

    def score(self, candidate: Tokens, photo_index: int) -> float:
        """CIDEr-D of one caption of the photo at `photo_index` of the references, 0 to 10."""
        photo = self._photos[photo_index]
        length = _cider_length(candidate)
        penalties = [math.exp(-((length - other) ** 2) / (2 * SIGMA**2)) for other in photo.lengths]
        total = 0.0
        for order in range(ORDERS):
            squared = 0.0
            overlaps = [0.0] * len(penalties)
            for ngram, count in Counter(_ngrams(candidate, order + 1)).items():
                idf = self._idf.get(ngram, self._unseen_idf)
                squared += (count * idf) ** 2
                for number, other in photo.postings.get(ngram, ()):
                    overlaps[number] += min(count, other) * other * idf * idf
            if squared:
                rows = zip(overlaps, photo.inverse_norms[order], penalties, strict=True)
                total += sum(a * b * c for a, b, c in rows) / math.sqrt(squared)
        return SCALE * total / (ORDERS * len(penalties))


def _inverse_document_frequencies(references: Sequence[Sequence[Tokens]]) -> dict[Ngram, float]:
    """log(photos) - log(photos whose references have the n-gram), for every n-gram."""
    frequencies: Counter[Ngram] = Counter()
    for sentences in references:
        frequencies.update(
            {
                ngram
                for tokens in sentences
                for order in range(1, ORDERS + 1)
                for ngram in _ngrams(tokens, order)
            }
        )
    photos = math.log(len(references))
    # One float object for each frequency: a corpus has millions of n-grams, few frequencies.
    values = {frequency: photos - math.log(frequency) for frequency in set(frequencies.values())}
    return {ngram: values[frequency] for ngram, frequency in frequencies.items()}


@dataclass(frozen=True, slots=True)
class Cider:
    """CIDEr-D of a corpus: the mean over photos, and float64 (photos,) what it is the mean of."""

    mean: float
    per_photo: npt.NDArray[np.float64]


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Cider:
    """CIDEr-D of one tokenised candidate a photo against that photo's tokenised references.

    Raises DataError when the two differ in length, or a photo has no reference.
    """
    _check_aligned(candidates, references)
    scores = cider_scores(candidates, references, np.arange(len(candidates)))
    return Cider(mean=float(np.mean(scores)), per_photo=scores)


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al., ACL 2002), float64 (4,), 0 to 1.

    The reference length is the closest one of each photo, the shorter of two equally close.
    Raises DataError when the two differ in length, or a photo has no reference.
    """
    return bleu_from_statistics(bleu_statistics(candidates, references).sum(axis=0))


def bleu_statistics(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.int64]:
    """What BLEU is made of, int64 (photos, 10); sums of rows are the statistics of a corpus.

    Columns: candidate length, closest reference length, n-grams of order 1 to 4, and how many of
    these the references hold, clipped.
    """
    _check_aligned(candidates, references)
    lines = [line.split() for line in candidates]
    lines += [line.split() for sentences in references for line in sentences]
    photos = np.repeat(np.arange(len(references)), [len(sentences) for sentences in references])
    lengths = np.array([len(line) for line in lines], np.int64)
    own, other = np.split(lengths, [len(candidates)])
    columns = [own, _closest_lengths(own, other, photos)]
    columns += [np.maximum(0, own - order) for order in range(ORDERS)]
    for counts in count_ngrams(lines):
        columns.append(_clipped(*counts.split(len(candidates)), photos, len(candidates)))
    return np.stack(columns, axis=1)


def _closest_lengths(own: Ints, other: Ints, photos: Ints) -> Ints:
    """The reference length nearest to each candidate's, the shorter of two; int64 (photos,)."""
    difference = np.abs(other - own[photos])
    order = np.lexsort((other, difference, photos))
    firsts = np.searchsorted(photos[order], np.arange(len(own)))
    return other[order][firsts]


def _clipped(mine: Counts, others: Counts, photos: Ints, lines: int) -> Ints:
    """How many of each candidate's n-grams its references hold, each no oftener than in one."""
    keys, group = np.unique(photos[others.line] * others.size + others.ngram, return_inverse=True)
    allowed = np.zeros(len(keys), np.int64)
    np.maximum.at(allowed, group, others.count)
    found = find(mine.line * mine.size + mine.ngram, keys)
    is_common = found >= 0
    correct = np.minimum(mine.count[is_common], allowed[found[is_common]])
    return np.bincount(mine.line[is_common], correct, lines).astype(np.int64)


def bleu_from_statistics(
    statistics: npt.NDArray[np.int64] | npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """BLEU-1 to BLEU-4, float64 (..., 4), of summed statistics (..., 10)."""
    length, closest = statistics[..., :1], statistics[..., 1:2]
    guesses, correct = statistics[..., 2 : 2 + ORDERS], statistics[..., 2 + ORDERS :]
    precisions = np.cumprod((correct + _BLEU_TINY) / (guesses + _BLEU_SMALL), axis=-1)
    ratio = (length + _BLEU_TINY) / (closest + _BLEU_SMALL)
    penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    scores: npt.NDArray[np.float64] = precisions ** (1 / np.arange(1, ORDERS + 1)) * penalty
    return scores


def rouge_l(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.float64]:
    """ROUGE-L (Lin, 2004) of each photo, float64 (photos,), 0 to 1; a corpus scores their mean.

    F-measure with beta 1.2 of the best precision and the best recall over the references.
    Raises DataError when the two differ in length, or a photo has no reference.
    """
    _check_aligned(candidates, references)
    pairs = zip(candidates, references, strict=True)
    return np.array([_rouge_l(candidate, sentences) for candidate, sentences in pairs], np.float64)


def _rouge_l(candidate: str, references: Sequence[str]) -> float:
    # split(" ") as pycocoevalcap has it: an empty caption counts as one empty token.
    tokens = candidate.split(" ")
    others = [sentence.split(" ") for sentence in references]
    common = _common_subsequences(tokens, others)
    precision = max(common) / len(tokens)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _common_subsequences(first: list[str], others: Sequence[list[str]]) -> list[int]:
    """Length of the longest common subsequence of `first` and each other line.

    A row of the usual table is the bits of one number (Hyyrö, IWOCA 2004): bit i is 0 where the
    length grows at word i of `first`.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(first)) - 1
    lengths = []
    for other in others:
        row = full
        for token in other:
            met = row & places.get(token, 0)
            row = ((row + met) | (row - met)) & full
        lengths.append(len(first) - row.bit_count())
    return lengths


def _check_aligned(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references):
        raise DataError(
            f"{len(candidates)} candidates for {len(references)} photos: give one for each photo"
        )
    for photo, sentences in enumerate(references):
        if not sentences:
            raise DataError(f"photo {photo} has no reference: give it one or leave it out")
