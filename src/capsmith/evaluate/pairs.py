"""Captions and their references as pycocoevalcap hands them to its scorers."""

from __future__ import annotations

from collections.abc import Sequence

from capsmith.errors import DataError
from capsmith.evaluate.tokenize import ptb_lines


def ptb_pairs(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Both tokenised by Penn Treebank rules, tokens joined by spaces.

    Raises `DataError` when the two differ in length, there is no photo, or one has no reference.
    """
    if not candidates or len(candidates) != len(references):
        raise DataError(
            f"{len(candidates)} candidates for {len(references)} photos: give one for each photo"
        )
    for photo, sentences in enumerate(references):
        if not sentences:
            raise DataError(f"photo {photo} has no reference: give it one or leave it out")
    lines = iter(ptb_lines([line for sentences in references for line in sentences]))
    return ptb_lines(candidates), [[next(lines) for _ in sentences] for sentences in references]
