"""Beam search that ranks finished captions by a power of their length, and its diverse groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from capsmith.runtime.engine import Floats, Ints, Scores, Want
from capsmith.runtime.filters import Filters, Options, largest, lookup, picked
from capsmith.runtime.rules import Hypothesis, Rules
from capsmith.runtime.search import Step, common_start, distinct, first_contexts
from capsmith.types import Beam, FinishReason


@dataclass(slots=True)
class _Finished:
    """The best finished captions of one group of beams, best first, at most `size`."""

    size: int
    scored: list[tuple[float, Hypothesis]] = field(default_factory=list)

    def add(self, score: float, hypothesis: Hypothesis) -> None:
        self.scored.append((score, hypothesis))
        self.scored.sort(key=lambda pair: -pair[0])
        del self.scored[self.size :]

    def can_improve(self, best_running: float) -> bool:
        return len(self.scored) < self.size or best_running > self.scored[-1][0]


@dataclass(frozen=True, slots=True)
class _Beams:
    """Running captions, a row each: by group of beams, and best first in a group."""

    groups: Ints
    """int64 (N,): picture * groups + group."""
    places: Ints
    """int64 (N,): 0, 1, ... in the group."""
    contexts: Ints
    """int64 (N, T): prompt and new tokens."""
    scores: Floats
    """float32 (N,): what ranks them."""
    logprobs: NDArray[np.float64]
    """float64 (N,): by the model alone."""

    def rows(self, which: Ints | NDArray[np.bool_]) -> _Beams:
        return _Beams(
            self.groups[which],
            self.places[which],
            self.contexts[which],
            self.scores[which],
            self.logprobs[which],
        )


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The best continuations of G groups, best first; all arrays are (G, M)."""

    groups: Ints
    """int64 (G,): their numbers."""
    totals: Floats
    rows: Ints
    """The old row that is continued."""
    choices: Ints
    """Which of that row's options."""
    tokens: Ints


class BeamSearch:
    """The rule "power" of `Beam`, in the way of `transformers` (early_stopping=False).

    Running captions are ranked by summed log-probability. One that ends among the best `size`
    continuations of a step is finished, with the score sum / length ** length_penalty. A picture
    is done with when its best running caption, scored at its present length, is not above the
    worst of `size` finished ones.

    With `groups`, each group of size / groups beams is a beam search of its own, but a token loses
    `diversity` for every beam of an earlier group that took it at the same step (Vijayakumar et
    al. 2018, algorithm 1). The loss stays in the sum that ranks captions.
    """

    def __init__(self, beam: Beam, rules: Rules, pictures: int, vocab_size: int) -> None:
        self._beam = beam
        self._rules = rules
        self._pictures = pictures
        self._width = beam.size // beam.groups
        # So many are enough whichever of them stop, or lose to tokens of earlier groups.
        keep = self._width + len(rules.stop) + (beam.size if beam.diversity else 0)
        self._filters = Filters(rules, vocab_size, keep=keep, scale="logprobs")
        self._is_stop = lookup(rules.stop, vocab_size)
        count = pictures * beam.groups
        self._finished = [_Finished(self._width) for _ in range(count)]
        self._beams = _Beams(
            groups=np.arange(count),
            places=np.zeros(count, np.int64),
            contexts=first_contexts(rules.prompt, count),
            scores=np.zeros(count, np.float32),
            logprobs=np.zeros(count),
        )

    @property
    def want(self) -> Want:
        """See `Search.want`."""
        return self._filters.want

    def advance(self, scores: Scores) -> Step:
        """See `Search.advance`."""
        groups = self._beam.groups
        copies = groups if self._new_tokens == 0 else 1
        options = self._filters.options(scores, self._beams.contexts[::copies])
        parents = np.arange(len(options.ids))
        if copies > 1:
            parents = np.repeat(parents, copies)
            options = options.rows(parents)
        taken = np.zeros((self._pictures, len(self._is_stop) if groups > 1 else 0), np.float32)
        following, rows = [], []
        for group in range(groups):
            members = np.flatnonzero(self._beams.groups % groups == group)
            ranked = self._rank(members, options, taken)
            beams, old_rows = self._follow(ranked, self._settle(ranked, options), options)
            if groups > 1:
                self._take(ranked, taken)
            following.append(beams)
            rows.append(old_rows)
        self._beams, old = _joined(following, rows)
        return Step(self._beams.contexts[:, -1], parents[old])

    def decided(self) -> tuple[int, ...]:
        """See `Search.decided`: what running captions and the best finished ones agree on."""
        if self._beam.rerank != "none":
            return ()
        running = self._beams.contexts[self._beams.groups < self._beam.groups]
        captions = [tuple(row[len(self._rules.prompt) :].tolist()) for row in running]
        best = [finished.scored[:1] for finished in self._finished[: self._beam.groups]]
        return common_start(captions + [pair[1].token_ids for pairs in best for pair in pairs])

    def results(self) -> list[list[Hypothesis]]:
        """See `Search.results`; up to `size` captions a picture."""
        results = []
        for first in range(0, len(self._finished), self._beam.groups):
            groups = self._finished[first : first + self._beam.groups]
            scored = sorted(chain(*(group.scored for group in groups)), key=lambda pair: -pair[0])
            results.append(distinct([hypothesis for _, hypothesis in scored]))
        return results

    @property
    def _new_tokens(self) -> int:
        return int(self._beams.contexts.shape[1]) - len(self._rules.prompt)

    def _rank(self, members: Ints, options: Options, taken: Floats) -> _Ranked:
        """The best continuations of the groups whose rows are `members`."""
        numbers = self._beams.groups[members]
        is_first = self._beams.places[members] == 0
        groups, group_of = numbers[is_first], np.cumsum(is_first) - 1
        ids = options.ids[members]
        totals = self._beams.scores[members, None] + options.scores[members]
        if taken.size:
            pictures = numbers // self._beam.groups
            totals = totals - taken[pictures[:, None], ids]
        choices = ids.shape[1]
        table = np.full((len(groups), self._width, choices), -np.inf, np.float32)
        rows = np.zeros((len(groups), self._width), np.int64)
        table[group_of, self._beams.places[members]] = totals
        rows[group_of, self._beams.places[members]] = members
        flat = table.reshape(len(groups), self._width * choices)
        best = largest(flat, (1 + len(self._rules.stop)) * self._width)
        places, columns = np.divmod(best, choices)
        old_rows = picked(rows, places)
        return _Ranked(
            groups=groups,
            totals=picked(flat, best),
            rows=old_rows,
            choices=columns,
            tokens=options.ids[old_rows, columns],
        )

    def _take(self, ranked: _Ranked, taken: Floats) -> None:
        """Charge later groups for the tokens that these groups chose; stopping is free."""
        is_chosen = np.isfinite(ranked.totals) & ~self._is_stop[ranked.tokens]
        is_chosen &= np.cumsum(is_chosen, axis=1) <= self._width
        group, rank = np.nonzero(is_chosen)
        places = (ranked.groups[group] // self._beam.groups, ranked.tokens[group, rank])
        np.add.at(taken, places, np.float32(self._beam.diversity))

    def _settle(self, ranked: _Ranked, options: Options) -> NDArray[np.bool_]:
        """Finish what has ended; true (G, M) where a continuation goes on to the next step."""
        length = self._new_tokens + 1
        is_allowed = np.isfinite(ranked.totals)
        stops = self._is_stop[ranked.tokens]
        ends = is_allowed & (stops | (length == self._rules.max_tokens))
        for group, rank in np.argwhere(ends[:, : self._width]).tolist():
            self._finish(ranked, options, group, rank, is_stop=bool(stops[group, rank]))
        for group in np.nonzero(~is_allowed[:, 0])[0].tolist():
            self._finish_dead_end(int(ranked.groups[group]))
        goes_on = is_allowed & ~ends
        goes_on &= np.cumsum(goes_on, axis=1) <= self._width
        best = np.where(goes_on, ranked.totals, -np.inf).max(1) / self._norm(length)
        for index, number in enumerate(ranked.groups.tolist()):
            goes_on[index] &= self._finished[number].can_improve(float(best[index]))
        return goes_on

    def _finish(
        self, ranked: _Ranked, options: Options, group: int, rank: int, *, is_stop: bool
    ) -> None:
        row, choice = ranked.rows[group, rank], ranked.choices[group, rank]
        tokens = self._beams.contexts[row, len(self._rules.prompt) :].tolist()
        if not is_stop:
            tokens.append(int(ranked.tokens[group, rank]))
        logprob = float(self._beams.logprobs[row] + options.logprobs[row, choice])
        reason: FinishReason = "stop" if is_stop else "length"
        score = float(ranked.totals[group, rank] / self._norm(self._new_tokens + 1))
        hypothesis = Hypothesis(tuple(tokens), logprob, reason)
        self._finished[ranked.groups[group]].add(score, hypothesis)

    def _finish_dead_end(self, number: int) -> None:
        """Take the captions of a group as they are when none of them has an allowed token."""
        beams = self._beams.rows(self._beams.groups == number)
        norm = self._norm(max(1, self._new_tokens))
        for row, context in enumerate(beams.contexts.tolist()):
            tokens = tuple(context[len(self._rules.prompt) :])
            hypothesis = Hypothesis(tokens, float(beams.logprobs[row]), "length")
            self._finished[number].add(float(beams.scores[row] / norm), hypothesis)

    def _norm(self, length: int) -> np.float32:
        return np.float32(float(length) ** self._beam.length_penalty)

    def _follow(
        self, ranked: _Ranked, goes_on: NDArray[np.bool_], options: Options
    ) -> tuple[_Beams, Ints]:
        """The beams of the next step, and the old row of each."""
        group, rank = np.nonzero(goes_on)
        rows, choices = ranked.rows[group, rank], ranked.choices[group, rank]
        tokens = ranked.tokens[group, rank]
        beams = _Beams(
            groups=ranked.groups[group],
            places=np.cumsum(goes_on, axis=1)[group, rank] - 1,
            contexts=np.concatenate([self._beams.contexts[rows], tokens[:, None]], axis=1),
            scores=ranked.totals[group, rank],
            logprobs=self._beams.logprobs[rows] + options.logprobs[rows, choices],
        )
        return beams, rows


def _joined(parts: list[_Beams], rows: list[Ints]) -> tuple[_Beams, Ints]:
    """The beams of all groups, a picture's side by side, and the old row of each."""
    if len(parts) == 1:
        return parts[0], rows[0]
    order = np.argsort(np.concatenate([part.groups for part in parts]), kind="stable")
    beams = _Beams(
        groups=np.concatenate([part.groups for part in parts]),
        places=np.concatenate([part.places for part in parts]),
        contexts=np.concatenate([part.contexts for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        logprobs=np.concatenate([part.logprobs for part in parts]),
    )
    return beams.rows(order), np.concatenate(rows)[order]
