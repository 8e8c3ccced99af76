"""LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014) language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from capsmith.models.language_models import StateSpec
from capsmith.models.prefixed import PrefixedModel, ranked

States = list[Tensor]
"""float32 (N, hidden) each: every layer's output, and in an LSTM its cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentConfig:
    """width: of word embeddings and prefix; hidden: of every layer.

    image: "first-step" reads the prefix before the words (Vinyals et al. 2015); "initial-state"
    makes the layers' first state of it, and then the caption needs a start token.
    dropout: before every layer but the first, and before the head.
    """

    vocab_size: int
    cell: Literal["lstm", "gru"] = "lstm"
    width: int = 256
    hidden: int = 256
    layers: int = 1
    dropout: float = 0.0
    image: Literal["first-step", "initial-state"] = "first-step"


class RecurrentModel(PrefixedModel):
    """A recurrent model that continues a prefix; see `LanguageModel`.

    Every layer is a module of its own, so that layers can be frozen one by one.
    """

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.width = config.width
        self.words = nn.Embedding(config.vocab_size, config.width)
        cell = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.layers = nn.ModuleList(
            cell(config.width if index == 0 else config.hidden, config.hidden, batch_first=True)
            for index in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, config.vocab_size)
        is_state = config.image == "initial-state"
        self.initial = nn.ModuleList(
            nn.Linear(config.width, config.hidden) for _ in self.state_spec() if is_state
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self.config.vocab_size

    @property
    def blocks(self) -> nn.ModuleList:
        """The recurrent layers, first to last."""
        return self.layers

    def embed(self, tokens: Tensor) -> Tensor:
        """See `PrefixedModel.embed`."""
        vectors: Tensor = self.words(tokens)
        return vectors

    def read(self, x: Tensor) -> Tensor:
        """See `PrefixedModel.read`."""
        nothing = x.new_zeros(len(x), self.config.hidden)
        return self._run(x, [nothing for _ in self.state_spec()])[0]

    def hidden(
        self, tokens: Tensor, prefix: Tensor, owner: Tensor, prefix_mask: Tensor | None = None
    ) -> Tensor:
        """See `PrefixedModel.hidden`; (N, T, hidden) where the prefix is the initial state."""
        if not self.initial:
            return super().hidden(tokens, prefix, owner, prefix_mask)
        states = [state[owner] for state in self._states_of(prefix, prefix_mask)]
        return self._run(self.embed(tokens), states)[0]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, (..., vocab_size)."""
        logits: Tensor = self.output(self.dropout(hidden))
        return logits

    def state_spec(self) -> list[StateSpec]:
        """Output, and cell of an LSTM, of every layer, in the order of `forward`'s `states`."""
        kinds = ("output", "cell") if self.config.cell == "lstm" else ("output",)
        return [
            StateSpec(f"{kind}.{index}", (self.config.hidden,))
            for index in range(self.config.layers)
            for kind in kinds
        ]

    def forward(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: Tensor | int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One decoding step; only the last position is scored. See `GPT2.forward`."""
        old = [state.index_select(0, parents) for state in states]
        x = self.embed(tokens)
        if self.initial:
            # A prefix of no rows, after the first step, adds nothing.
            fresh = self._states_of(prefix, None)
            old = [state + addition for state, addition in zip(old, fresh, strict=True)]
        else:
            x = torch.cat([prefix, x], 1)
        outputs, following = self._run(x, old)
        hidden = outputs[:, -1]
        logits = self.head(hidden)
        return *ranked(logits, top), logits, hidden, *following

    def _states_of(self, prefix: Tensor, mask: Tensor | None) -> States:
        """The sum over the prefix's real rows (B, P, width) of a linear map, for every state."""
        real: Tensor | float = 1.0 if mask is None else mask[:, :, None]
        return [(project(prefix) * real).sum(1) for project in self.initial]

    def _run(self, x: Tensor, states: States) -> tuple[Tensor, States]:
        """Outputs (N, S, hidden) of the last layer, and every layer's state after the last."""
        following: States = []
        size = len(states) // len(self.layers)
        for index, layer in enumerate(self.layers):
            old = [state[None] for state in states[size * index : size * (index + 1)]]
            x, new = layer(x if index == 0 else self.dropout(x), tuple(old) if size > 1 else old[0])
            following += [state[0] for state in (new if size > 1 else (new,))]
        return x, following
