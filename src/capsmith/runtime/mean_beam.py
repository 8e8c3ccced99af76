"""ClipCap's beam search: finished and running captions compete by mean log-probability."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from capsmith.runtime.engine import Scores, Want
from capsmith.runtime.filters import Filters, Options, largest, lookup
from capsmith.runtime.rules import Hypothesis, Rules
from capsmith.runtime.search import NO_ROWS, Step, common_start, distinct, first_contexts
from capsmith.types import Beam, FinishReason


@dataclass(frozen=True, slots=True)
class _Slot:
    """One of a picture's beams. Once it ended (`reason` is set) it only defends its mean."""

    token_ids: tuple[int, ...]
    total: np.float32
    """What ranks it, before division by `length`."""
    logprob: float
    reason: FinishReason | None = None

    @property
    def length(self) -> int:
        """Tokens that count: the stop token does."""
        return max(1, len(self.token_ids) + (self.reason == "stop"))

    @property
    def mean(self) -> np.float32:
        return np.float32(self.total / np.float32(self.length))


class MeanBeamSearch:
    """The rule "mean-with-stop" of `Beam`: `generate_beam` of ClipCap (Mokady et al. 2021).

    At every step a picture's `size` best are kept among the captions that ended and all
    continuations of the others, ranked by mean log-probability, the stop token counted. A picture
    is done with when all of them have ended.
    """

    def __init__(self, beam: Beam, rules: Rules, pictures: int, vocab_size: int) -> None:
        self._beam = beam
        self._rules = rules
        self._filters = Filters(rules, vocab_size, keep=beam.size, scale="logprobs")
        self._is_stop = lookup(rules.stop, vocab_size)
        self._slots = [[_Slot((), np.float32(0), 0.0)] for _ in range(pictures)]
        self._contexts = first_contexts(rules.prompt, pictures)

    @property
    def want(self) -> Want:
        """See `Search.want`."""
        return self._filters.want

    def advance(self, scores: Scores) -> Step:
        """See `Search.advance`."""
        options = self._filters.options(scores, self._contexts)
        live = itertools.count()  # running slots of all pictures, in order, are the rows
        parents = []
        for picture, slots in enumerate(self._slots):
            rows = [next(live) if slot.reason is None else -1 for slot in slots]
            best = self._best(slots, rows, options)
            self._slots[picture] = [slot for slot, _ in best]
            parents += [row for slot, row in best if slot.reason is None]
        captions = [s.token_ids for slots in self._slots for s in slots if s.reason is None]
        if not captions:
            return NO_ROWS
        self._contexts = np.array([self._rules.prompt + tokens for tokens in captions], np.int64)
        return Step(self._contexts[:, -1], np.array(parents, np.int64))

    def decided(self) -> tuple[int, ...]:
        """See `Search.decided`: what all beams agree on."""
        if self._beam.rerank != "none":
            return ()
        return common_start([slot.token_ids for slot in self._slots[0]])

    def results(self) -> list[list[Hypothesis]]:
        """See `Search.results`; up to `size` captions a picture."""
        ranked = [sorted(slots, key=lambda slot: -slot.mean) for slots in self._slots]
        return [
            distinct([Hypothesis(s.token_ids, s.logprob, s.reason or "length") for s in slots])
            for slots in ranked
        ]

    def _best(
        self, slots: list[_Slot], rows: list[int], options: Options
    ) -> list[tuple[_Slot, int]]:
        """A picture's slots after this step, each with its old row."""
        means = np.full((len(slots), options.ids.shape[1]), -np.inf, np.float32)
        for index, (slot, row) in enumerate(zip(slots, rows, strict=True)):
            if slot.reason is None and not np.isfinite(options.scores[row, 0]):
                slots[index] = slot = replace(slot, reason="length")
            if slot.reason is None:
                length = np.float32(len(slot.token_ids) + 1)
                means[index] = (slot.total + options.scores[row]) / length
            else:
                means[index, 0] = slot.mean
        kept = []
        for place in largest(means.reshape(1, -1), self._beam.size)[0].tolist():
            index, choice = divmod(place, means.shape[1])
            if np.isfinite(means[index, choice]):
                slot, row = slots[index], rows[index]
                is_running = slot.reason is None
                kept.append(
                    (self._extended(slot, options, row, choice) if is_running else slot, row)
                )
        return kept

    def _extended(self, slot: _Slot, options: Options, row: int, choice: int) -> _Slot:
        token = int(options.ids[row, choice])
        total = np.float32(slot.total + options.scores[row, choice])
        logprob = slot.logprob + float(options.logprobs[row, choice])
        if self._is_stop[token]:
            return _Slot(slot.token_ids, total, logprob, "stop")
        token_ids = (*slot.token_ids, token)
        reason: FinishReason | None = "length" if len(token_ids) == self._rules.max_tokens else None
        return _Slot(token_ids, total, logprob, reason)
