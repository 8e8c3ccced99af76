"""A small random recurrent language model in numpy: an engine for tests of decoding."""

from __future__ import annotations

import numpy as np

from capsmith.runtime.engine import Floats, Ints, Scores, State, Want

WIDTH = 12


class ToyEngine:
    """hidden = tanh(recurrent(hidden) + embedding(token)); logits = head(hidden).

    Sums run in one order whatever the number of rows (einsum calls no BLAS), so a row's numbers
    never depend on its neighbours. `rows` lists how many rows each call had, `prompts` what
    `start` was given.
    """

    def __init__(self, *, vocab_size: int = 30, seed: int = 0, sharpness: float = 1.0) -> None:
        generator = np.random.default_rng(seed)
        self.vocab_size = vocab_size
        self._embedding = generator.normal(size=(vocab_size, WIDTH)).astype(np.float32)
        self._recurrent = generator.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 3
        self._head = sharpness * generator.normal(size=(WIDTH, vocab_size)).astype(np.float32)
        self.rows: list[int] = []
        self.prompts: list[list[list[int]]] = []

    def start(self, prefix: Floats, prompt: Ints, want: Want) -> tuple[State, Scores]:
        self.prompts.append(prompt.tolist())
        hidden = np.tanh(prefix.sum(1))
        for tokens in prompt.T:
            hidden = self._next(hidden, tokens)
        return hidden, self._scores(hidden, want)

    def step(self, state: State, tokens: Ints, parents: Ints, want: Want) -> tuple[State, Scores]:
        assert isinstance(state, np.ndarray)
        hidden = self._next(state[parents], tokens)
        return hidden, self._scores(hidden, want)

    def _next(self, hidden: Floats, tokens: Ints) -> Floats:
        carried = np.einsum("nd,de->ne", hidden, self._recurrent)
        following: Floats = np.tanh(carried + self._embedding[tokens])
        return following

    def _scores(self, hidden: Floats, want: Want) -> Scores:
        self.rows.append(len(hidden))
        logits = np.einsum("nd,dv->nv", hidden, self._head)
        logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        ids = np.argsort(-logprobs, axis=1, kind="stable")[:, : want.top]
        return Scores(
            np.take_along_axis(logprobs, ids, 1),
            ids,
            logits if want.logits else None,
            hidden if want.hidden else None,
        )


def prefixes(count: int, *, seed: int = 1) -> Floats:
    """Mapper rows float32 (count, 2, WIDTH) of that many pictures."""
    return np.random.default_rng(seed).normal(size=(count, 2, WIDTH)).astype(np.float32)
