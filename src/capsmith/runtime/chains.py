"""Searches whose rows never look at one another: greedy search and sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capsmith.runtime.engine import Floats, Ints, Scores, Want
from capsmith.runtime.filters import Filters, lookup
from capsmith.runtime.rules import Hypothesis, Rules
from capsmith.runtime.sampling import drawn, filtered, sharpened, uniforms
from capsmith.runtime.search import NO_ROWS, Step, distinct, first_contexts
from capsmith.types import FinishReason, Sample, TopN

Choose = Callable[[Floats, Ints, int], Ints]
"""From descending scores (N, K), each row's candidate index (N,) and the number of the new token
(from 1) to columns (N,)."""


@dataclass(frozen=True, slots=True)
class Chooser:
    """A way to choose the next token of a row, and how many of the likeliest it looks at."""

    choose: Choose
    keep: int | None
    candidates: int = 1


def greedy_chooser() -> Chooser:
    """The likeliest token."""
    return Chooser(lambda scores, _candidate, _number: np.zeros(len(scores), np.int64), keep=1)


def sample_chooser(sample: Sample, rules: Rules, candidates: range) -> Chooser:
    """A draw after temperature, top-k, top-p and min-p, for some candidates of a picture."""
    numbers = uniforms(sample.seed, candidates, rules.max_tokens)

    def choose(scores: Floats, candidate: Ints, number: int) -> Ints:
        return drawn(filtered(scores, sample), numbers[candidate, number - 1])

    return Chooser(choose, keep=sample.top_k or None, candidates=len(candidates))


def top_n_chooser(top_n: TopN, rules: Rules, candidates: range) -> Chooser:
    """A draw among the n likeliest, n falling along the caption."""
    numbers = uniforms(top_n.seed, candidates, rules.max_tokens)

    def choose(scores: Floats, candidate: Ints, number: int) -> Ints:
        return drawn(sharpened(scores, number, top_n), numbers[candidate, number - 1])

    keep = max((choices for _, choices in top_n.schedule), default=1)
    return Chooser(choose, keep=keep, candidates=len(candidates))


class Chains:
    """Rows that each choose one token a step; a row that ends is dropped."""

    def __init__(self, chooser: Chooser, rules: Rules, pictures: int, vocab_size: int) -> None:
        self._chooser = chooser
        self._rules = rules
        self._pictures = pictures
        self._filters = Filters(rules, vocab_size, keep=chooser.keep, scale="logits")
        self._is_stop = lookup(rules.stop, vocab_size)
        # Chain number = picture * candidates + candidate; a live chain is a row, in this order.
        self._chains = np.arange(pictures * chooser.candidates)
        self._contexts = first_contexts(rules.prompt, len(self._chains))
        self._logprobs = np.zeros(len(self._chains))
        self._ended: dict[int, Hypothesis] = {}

    @property
    def want(self) -> Want:
        """See `Search.want`."""
        return self._filters.want

    def advance(self, scores: Scores) -> Step:
        """See `Search.advance`."""
        number = self._contexts.shape[1] - len(self._rules.prompt) + 1
        copies = self._chooser.candidates if number == 1 else 1
        options = self._filters.options(scores, self._contexts[::copies])
        parents = np.repeat(np.arange(len(options.ids)), copies)
        options = options.rows(parents)

        has_choice = np.isfinite(options.scores[:, 0])
        self._end(~has_choice, "length")
        options, parents = options.rows(has_choice), parents[has_choice]

        candidates = self._chains % self._chooser.candidates
        columns = self._chooser.choose(options.scores, candidates, number)
        rows = np.arange(len(columns))
        tokens = options.ids[rows, columns]
        self._logprobs = self._logprobs + options.logprobs[rows, columns]
        stops = self._is_stop[tokens]
        self._end(stops, "stop")
        step = Step(tokens[~stops], parents[~stops])
        self._contexts = np.concatenate([self._contexts, step.tokens[:, None]], axis=1)
        if number < self._rules.max_tokens:
            return step
        self._end(np.ones(len(self._chains), np.bool_), "length")
        return NO_ROWS

    def decided(self) -> tuple[int, ...]:
        """See `Search.decided`."""
        if self._chooser.candidates > 1:
            return ()
        return self._ended[0].token_ids if 0 in self._ended else self._new_tokens(0)

    def results(self) -> list[list[Hypothesis]]:
        """See `Search.results`; the likeliest a token first."""
        chains = np.arange(self._pictures * self._chooser.candidates)
        return [
            distinct(
                sorted((self._ended[chain] for chain in picture), key=lambda h: -h.mean_logprob)
            )
            for picture in chains.reshape(self._pictures, -1).tolist()
        ]

    def _end(self, which: NDArray[np.bool_], reason: FinishReason) -> None:
        for row in np.nonzero(which)[0].tolist():
            self._ended[int(self._chains[row])] = Hypothesis(
                self._new_tokens(row), float(self._logprobs[row]), reason
            )
        self._chains = self._chains[~which]
        self._contexts = self._contexts[~which]
        self._logprobs = self._logprobs[~which]

    def _new_tokens(self, row: int) -> tuple[int, ...]:
        return tuple(self._contexts[row, len(self._rules.prompt) :].tolist())
