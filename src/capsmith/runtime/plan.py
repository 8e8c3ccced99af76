"""One captioning job: what to run and by which rules, resolved once for all its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from capsmith.description import Encoder
from capsmith.runtime import decoding
from capsmith.runtime.embedding import embedding, unit
from capsmith.runtime.engine import Floats
from capsmith.runtime.graphs import Graphs
from capsmith.runtime.rules import Hypothesis, Rules
from capsmith.runtime.tokenizer import Tokenizer
from capsmith.types import Candidate, Caption, Strategy


@dataclass(frozen=True, slots=True)
class Plan:
    """Features in, captions out.

    `prompt` is the token ids of the caller's prompt: the caption's text begins with it, while
    token ids and log-probabilities are those of what was added.
    """

    graphs: Graphs
    tokenizer: Tokenizer
    strategy: Strategy
    rules: Rules
    prompt: tuple[int, ...]
    language: str
    encoder: Encoder

    def captions(self, features: Floats, thumbnails: Sequence[bytes | None]) -> list[Caption]:
        """Captions of features float32 (n, k, d); `thumbnails` are what notebooks show."""
        if not len(features):
            return []
        prefix = self.graphs.prefix(features)
        judge = partial(self._marks, features)
        found = decoding.decode(self.graphs.engine, prefix, self.strategy, self.rules, judge=judge)
        return [
            self._caption(hypotheses, thumbnail)
            for hypotheses, thumbnail in zip(found, thumbnails, strict=True)
        ]

    def stream(self, features: Floats) -> Iterator[str]:
        """Pieces of the caption's text of one picture's features (1, k, d)."""
        prefix = self.graphs.prefix(features)
        judge = partial(self._marks, features)
        tokens = decoding.stream(self.graphs.engine, prefix, self.strategy, self.rules, judge=judge)
        return self.tokenizer.stream(chain(self.prompt, tokens))

    def score(self, features: Floats, token_ids: Sequence[int]) -> float:
        """Natural log-probability of the tokens and the stop token after them."""
        prefix = self.graphs.prefix(features)
        return decoding.score(self.graphs.engine, prefix, tuple(token_ids), self.rules)

    def _marks(self, features: Floats, picture: int, hypotheses: Sequence[Hypothesis]) -> Floats:
        """The cosine float32 (n,) between a picture and each of n captions; see `Judge`."""
        texts = [self.tokenizer.decode([*self.prompt, *each.token_ids]) for each in hypotheses]
        vectors = unit(np.concatenate([self.graphs.embed_text(text) for text in texts]))
        marks: Floats = vectors @ embedding(features[picture : picture + 1], self.encoder)[0]
        return marks

    def _caption(self, hypotheses: Sequence[Hypothesis], thumbnail: bytes | None) -> Caption:
        candidates = tuple(self._candidate(hypothesis) for hypothesis in hypotheses)
        best = candidates[0]
        return Caption(
            text=best.text,
            language=self.language,
            logprob=best.logprob,
            mean_logprob=best.mean_logprob,
            tokens=best.tokens,
            token_ids=best.token_ids,
            candidates=candidates,
            finish_reason=best.finish_reason,
            thumbnail=thumbnail,
        )

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        return Candidate(
            text=self.tokenizer.decode([*self.prompt, *hypothesis.token_ids]),
            token_ids=hypothesis.token_ids,
            tokens=self.tokenizer.tokens(hypothesis.token_ids),
            logprob=hypothesis.logprob,
            mean_logprob=hypothesis.mean_logprob,
            finish_reason=hypothesis.finish_reason,
        )
