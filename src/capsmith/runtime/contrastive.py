"""Contrastive search (Su et al. 2022, "A contrastive framework for neural text generation")."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capsmith.runtime.engine import Floats, Ints, Scores, Want
from capsmith.runtime.filters import Filters, Options, lookup
from capsmith.runtime.rules import Hypothesis, Rules
from capsmith.runtime.search import Step, first_contexts
from capsmith.types import Contrastive, FinishReason


@dataclass(frozen=True, slots=True)
class _Running:
    """Captions that run on, in this order; the last step read the tokens `ahead` of each."""

    pictures: Ints
    """int64 (N,)."""
    contexts: Ints
    """int64 (N, T): prompt and new tokens."""
    logprobs: NDArray[np.float64]
    """float64 (N,)."""
    hidden: Floats
    """float32 (N, t, D): earlier hidden states, of length 1."""
    ahead: Options | None = None

    def rows(self, which: NDArray[np.bool_]) -> _Running:
        return _Running(
            self.pictures[which], self.contexts[which], self.logprobs[which], self.hidden[which]
        )

    def extended(self, tokens: Ints, hidden: Floats) -> _Running:
        """The same captions, a token and its hidden state longer."""
        contexts = np.concatenate([self.contexts, tokens[:, None]], axis=1)
        longer = np.concatenate([self.hidden, hidden[:, None]], axis=1)
        return replace(self, contexts=contexts, hidden=longer)


class ContrastiveSearch:
    """Looks one token ahead: each of the k likeliest tokens is read, then one of them is taken.

    The token taken has the largest (1 - alpha) * probability - alpha * similarity (equation 5),
    where similarity is the largest cosine between the token's hidden state and the earlier ones:
    that of the last position before the first new token, and those of the new tokens. (The paper
    has those of the whole prompt; an image's prefix has no words to repeat.)
    """

    def __init__(
        self, contrastive: Contrastive, rules: Rules, pictures: int, vocab_size: int
    ) -> None:
        self._alpha = contrastive.alpha
        self._rules = rules
        self._filters = Filters(rules, vocab_size, keep=contrastive.k, scale="logprobs")
        self._is_stop = lookup(rules.stop, vocab_size)
        self._ended: dict[int, Hypothesis] = {}
        self._running: _Running | None = None
        self._count = pictures

    @property
    def want(self) -> Want:
        """See `Search.want`."""
        return replace(self._filters.want, hidden=True)

    def advance(self, scores: Scores) -> Step:
        """See `Search.advance`."""
        assert scores.hidden is not None
        hidden = scores.hidden / np.linalg.norm(scores.hidden, axis=1, keepdims=True)
        if self._running is None:
            rows = np.arange(self._count)
            running = _Running(
                pictures=rows,
                contexts=first_contexts(self._rules.prompt, self._count),
                logprobs=np.zeros(self._count),
                hidden=hidden[:, None],
            )
        else:
            running, rows = self._chosen(self._running, hidden)
        ahead = self._filters.options(_rows_of(scores, rows), running.contexts)
        is_dead = ~np.isfinite(ahead.scores[:, 0])
        self._end(running, is_dead, "length")
        running, ahead, rows = running.rows(~is_dead), ahead.rows(~is_dead), rows[~is_dead]
        self._running = replace(running, ahead=ahead)
        captions, choices = np.nonzero(np.isfinite(ahead.scores))
        return Step(ahead.ids[captions, choices], rows[captions])

    def decided(self) -> tuple[int, ...]:
        """See `Search.decided`."""
        if 0 in self._ended or self._running is None:
            return self._ended[0].token_ids if 0 in self._ended else ()
        return tuple(self._running.contexts[0, len(self._rules.prompt) :].tolist())

    def results(self) -> list[list[Hypothesis]]:
        """See `Search.results`; one caption a picture."""
        return [[self._ended[picture]] for picture in range(self._count)]

    def _chosen(self, running: _Running, hidden: Floats) -> tuple[_Running, Ints]:
        """The captions that run on with the token chosen for each, and the row that read it.

        hidden: float32 (N, D) of length 1, a row for each allowed token in `running.ahead`.
        """
        ahead = running.ahead
        assert ahead is not None
        is_allowed = np.isfinite(ahead.scores)
        captions, _ = np.nonzero(is_allowed)
        similarity = np.einsum("nd,ntd->nt", hidden, running.hidden[captions]).max(1)
        probability = np.exp(ahead.scores[is_allowed])
        values = np.full(is_allowed.shape, -np.inf, np.float32)
        values[is_allowed] = (1 - self._alpha) * probability - self._alpha * similarity
        choices = values.argmax(1)
        every = np.arange(len(choices))
        rows = (np.cumsum(is_allowed) - 1).reshape(is_allowed.shape)[every, choices]

        tokens = ahead.ids[every, choices]
        running = replace(running, logprobs=running.logprobs + ahead.logprobs[every, choices])
        stops = self._is_stop[tokens]
        self._end(running, stops, "stop")
        following = running.rows(~stops).extended(tokens[~stops], hidden[rows[~stops]])
        is_full = following.contexts.shape[1] - len(self._rules.prompt) == self._rules.max_tokens
        full = np.full(len(following.pictures), is_full)
        self._end(following, full, "length")
        return following.rows(~full), rows[~stops][~full]

    def _end(self, running: _Running, which: NDArray[np.bool_], reason: FinishReason) -> None:
        for row in np.nonzero(which)[0].tolist():
            tokens = tuple(running.contexts[row, len(self._rules.prompt) :].tolist())
            self._ended[int(running.pictures[row])] = Hypothesis(
                tokens, float(running.logprobs[row]), reason
            )


def _rows_of(scores: Scores, rows: Ints) -> Scores:
    logits = None if scores.logits is None else scores.logits[rows]
    return Scores(scores.top_logprobs[rows], scores.top_ids[rows], logits, None)
