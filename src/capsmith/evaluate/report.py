"""All scores of a set of captions at once, from plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from capsmith.errors import DataError
from capsmith.evaluate.languages import tokenised
from capsmith.evaluate.lexical import bleu_statistics, cider_d, rouge_l
from capsmith.evaluate.statistics import Interval, bleu_intervals, mean_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Scores of one caption a photo, with 95 % intervals over photos.

    bleu: BLEU-1 to BLEU-4. distinct_share: distinct captions / captions, 1 when no two photos got
    the same one. mean_words: mean number of tokens of a caption.
    """

    photos: int
    cider: Interval
    bleu: tuple[Interval, ...]
    rouge_l: Interval
    distinct_share: float
    mean_words: float

    def to_dict(self) -> Mapping[str, Any]:
        """Plain dictionaries and tuples, ready for `json.dumps`."""
        return asdict(self)


def report(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, language: str = "en"
) -> Report:
    """Score captions as they were written against each photo's references in the same language.

    Raises DataError when the two differ in length, when there is no photo, when a photo has no
    reference, or one text stands for a list of them.
    """
    if isinstance(candidates, str) or any(isinstance(lines, str) for lines in references):
        raise DataError("one text stands where a list is read; give a list of references a photo")
    if not candidates:
        raise DataError("no photos: a report needs at least one caption")
    captions = tokenised(candidates, language)
    lines = iter(tokenised([line for sentences in references for line in sentences], language))
    others = [[next(lines) for _ in sentences] for sentences in references]
    return Report(
        photos=len(captions),
        cider=mean_interval(cider_d(captions, others).per_photo),
        bleu=bleu_intervals(bleu_statistics(captions, others)),
        rouge_l=mean_interval(rouge_l(captions, others)),
        distinct_share=len(set(captions)) / len(captions),
        mean_words=float(np.mean([len(caption.split()) for caption in captions])),
    )
