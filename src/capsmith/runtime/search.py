"""What every search has in common: it reads scores and says how the rows go on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import numpy as np

from capsmith.runtime.engine import Ints, Scores, Want
from capsmith.runtime.rules import Hypothesis


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of the next step: row n continues the old row parents[n] with tokens[n]."""

    tokens: Ints
    """int64 (N,)."""
    parents: Ints
    """int64 (N,)."""


NO_ROWS = Step(np.zeros(0, np.int64), np.zeros(0, np.int64))
"""The step that ends a search."""


class Search(Protocol):
    """A strategy at work on a batch of pictures. Pure numpy; it never sees the model."""

    @property
    def want(self) -> Want:
        """What it must be told of every row."""
        ...

    def advance(self, scores: Scores) -> Step:
        """Choose, given the scores of the rows of the last step (at first, a row a picture).

        Rows that are done with do not come back; a step without rows ends the search.
        """
        ...

    def decided(self) -> tuple[int, ...]:
        """New tokens of the first picture's best caption that no later step can change."""
        ...

    def results(self) -> list[list[Hypothesis]]:
        """One list a picture, best first, once the search has ended."""
        ...


def first_contexts(prompt: tuple[int, ...], rows: int) -> Ints:
    """What every row has read at first: int64 (rows, T)."""
    return np.tile(np.array(prompt, np.int64), (rows, 1))


def common_start(captions: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all captions begin with."""
    agreed = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*captions, strict=False))
    return tuple(tokens[0] for tokens in agreed)


def distinct(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """The same list without captions that an earlier one repeats."""
    first: dict[tuple[int, ...], Hypothesis] = {}
    for item in hypotheses:
        first.setdefault(item.token_ids, item)
    return list(first.values())
