"""Rules applied to a model's scores: which next tokens are allowed, and how good they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from capsmith.runtime.engine import Floats, Ints, Scores, Want
from capsmith.runtime.rules import Rules

Number = TypeVar("Number", np.float32, np.int64)

# Up to so many columns a whole sort beats a partition, and most often they are in order already.
_SHORT = 64

Scale = Literal["logits", "logprobs"]
"""What a repetition penalty multiplies. `transformers` penalises logits in greedy search and
sampling, and log-probabilities in beam search."""


@dataclass(frozen=True, slots=True)
class Options:
    """Next tokens of N rows, best first."""

    ids: Ints
    """int64 (N, K)."""
    scores: Floats
    """float32 (N, K), descending: what strategies rank by; -inf where a token is not allowed."""
    logprobs: Floats
    """float32 (N, K): the model's own natural log-probabilities."""

    def rows(self, index: Ints | NDArray[np.bool_]) -> Options:
        """Some rows: those numbered, in that order, or those that are true."""
        return Options(self.ids[index], self.scores[index], self.logprobs[index])


class Filters:
    """Turns scores into options under `Rules`.

    Where it can, it asks the model for so many of the likeliest tokens that, however many of them
    are banned, `keep` allowed ones remain. It asks for the whole vocabulary only for a repetition
    penalty, or when every token is to be kept.
    """

    def __init__(self, rules: Rules, vocab_size: int, *, keep: int | None, scale: Scale) -> None:
        """keep: how many allowed tokens a row the strategy needs; None for all of them."""
        self._rules = rules
        self._scale = scale
        self._vocab_size = vocab_size
        self._keep = vocab_size if keep is None else min(vocab_size, keep)
        single = {word[0] for word in rules.forbidden if len(word) == 1} - rules.stop
        self._always = lookup(rules.never | single, vocab_size)
        self._always_or_stop = self._always | lookup(rules.stop, vocab_size)
        self._words = [(np.array(w[:-1]), w[-1]) for w in rules.forbidden if len(w) > 1]
        most_banned = int(self._always_or_stop.sum()) + len(self._words)
        if rules.no_repeat_ngram:
            most_banned += len(rules.prompt) + rules.max_tokens
        self._top = min(vocab_size, self._keep + most_banned)
        self._needs_logits = self._keep == vocab_size or rules.repetition_penalty != 1

    @property
    def want(self) -> Want:
        """What to ask of the engine."""
        return Want(logits=True) if self._needs_logits else Want(top=self._top)

    def options(self, scores: Scores, contexts: Ints) -> Options:
        """The best next tokens of N rows, `keep` of them (or the whole vocabulary).

        contexts: int64 (N, T), what each row has read: the prompt and its new tokens.
        """
        if not self._needs_logits:
            ids, logprobs, values = scores.top_ids, scores.top_logprobs, scores.top_logprobs
        else:
            assert scores.logits is not None
            ids = np.broadcast_to(np.arange(self._vocab_size), scores.logits.shape)
            logprobs = log_softmax(scores.logits)
            values = scores.logits if self._scale == "logits" else logprobs
            values = _penalise(values, contexts, self._rules.repetition_penalty)
        values = self._ban(values, ids, contexts)
        best = np.arange(len(values))[:, None], largest(values, self._keep)
        return Options(ids[best], values[best], logprobs[best])

    def _ban(self, values: Floats, ids: Ints, contexts: Ints) -> Floats:
        new_tokens = contexts.shape[1] - len(self._rules.prompt)
        is_short = new_tokens < self._rules.min_tokens
        always = self._always_or_stop if is_short else self._always
        values = np.where(always[ids], np.float32(-np.inf), values)
        for rows, tokens in self._banned_after(contexts):
            hits, columns = np.nonzero(ids[rows] == tokens[:, None])
            values[rows[hits], columns] = -np.inf
        return values

    def _banned_after(self, contexts: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Rows and a token for each that what was read bans: ends of words and of n-grams."""
        length = contexts.shape[1]
        for start, end in self._words:
            if length >= len(start):
                rows = np.nonzero((contexts[:, length - len(start) :] == start).all(1))[0]
                if len(rows):
                    yield rows, np.full(len(rows), end)
        size = self._rules.no_repeat_ngram
        if size and length >= size:
            places = length - size + 1
            is_repeat = np.ones((len(contexts), places), np.bool_)
            for offset in range(size - 1):
                is_repeat &= (
                    contexts[:, offset : offset + places] == contexts[:, places + offset, None]
                )
            rows, found = np.nonzero(is_repeat)
            if len(rows):
                yield rows, contexts[rows, found + size - 1]


def log_softmax(logits: Floats) -> Floats:
    """Natural log-probabilities float32 (N, V) of logits (N, V)."""
    shifted = logits - logits.max(1, keepdims=True)
    logprobs: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logprobs


def largest(values: Floats, count: int) -> Ints:
    """Columns int64 (N, count) of the largest values of each row, descending; ties by column."""
    width = values.shape[1]
    if width <= max(4 * count, _SHORT):
        return np.argsort(-values, axis=1, kind="stable")[:, :count]
    found = np.sort(np.argpartition(-values, count, axis=1)[:, :count], axis=1)
    order = np.argsort(-picked(values, found), axis=1, kind="stable")
    return picked(found, order)


def picked(values: NDArray[Number], columns: Ints) -> NDArray[Number]:
    """(N, K), in row n values[n, columns[n]]: `np.take_along_axis`, several times as fast."""
    return values[np.arange(len(values))[:, None], columns]


def _penalise(values: Floats, contexts: Ints, penalty: float) -> Floats:
    """Keskar et al. 2019: tokens that were read lose, once however often they were read."""
    if penalty == 1 or not contexts.shape[1]:
        return values
    seen = np.take_along_axis(values, contexts, 1)
    values = values.copy()
    np.put_along_axis(values, contexts, np.where(seen < 0, seen * penalty, seen / penalty), 1)
    return values


def lookup(tokens: frozenset[int] | set[int], vocab_size: int) -> NDArray[np.bool_]:
    """bool (vocab_size,): true at these tokens."""
    table = np.zeros(vocab_size, np.bool_)
    table[list(tokens)] = True
    return table
