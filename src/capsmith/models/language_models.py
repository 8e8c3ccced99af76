"""Language models that continue a prefix with a caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Axis = int | Literal["past", "memory"]


@dataclass(frozen=True, slots=True)
class StateSpec:
    """Name and shape (after the row axis) of one tensor of decoding state.

    The axes "past" and "memory" have length 0 before the first step.
    """

    name: str
    shape: tuple[Axis, ...]


class LanguageModel(Protocol):
    """What every language model here can do: read whole captions, and decode step by step.

    Written as an `nn.Module`, exported as a decoder graph (docs/design, "The decoder graph").
    """

    width: int
    """Width of the prefix vectors that it reads."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        ...

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, first to last."""
        ...

    def hidden(
        self, tokens: Tensor, prefix: Tensor, owner: Tensor, prefix_mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states (N, S, hidden width) of every position that the model reads.

        The last T of them are those of the tokens; rows of the prefix that are read as input
        vectors stand before them, a prefix that is memory or an initial state does not.
        tokens: int64 (N, T), padded on the right where at all; prefix: float32 (B, P, width);
        owner: int64 (N,), the prefix of each row of tokens; prefix_mask: bool (B, P), True where a
        row of the prefix is real.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, (..., vocab_size)."""
        ...

    def state_spec(self) -> list[StateSpec]:
        """The tensors of decoding state, in the order of the step's `states`."""
        ...

    def __call__(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: Tensor | int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One decoding step: top log-probabilities, ids, logits, hidden and the next states."""
        ...


class Attention(nn.Module):
    """Multi-head attention over keys and values that are projected apart, so they can be cached."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, width / heads)."""
        rows, length, width = x.shape
        return x.view(rows, length, self.heads, width // self.heads).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `x` (B, T, width), each (B, heads, T, width / heads)."""
        key, value = self.key_value(x).chunk(2, 2)
        return self.split(key), self.split(value)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `x` (B, T, width); `mask` is True where a key may be seen."""
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            self.split(self.query(x)), key, value, attn_mask=mask, dropout_p=dropout
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output


class DecoderLayer(nn.Module):
    """Pre-norm block: causal self-attention, attention to the prefix, feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads, dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        own: tuple[Tensor, Tensor],
        memory: tuple[Tensor, Tensor],
        mask: Tensor | None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        x = x + self.dropout(self.self_attention(self.self_norm(x), *own, mask))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), *memory, memory_mask))
        feed: Tensor = self.contract(F.gelu(self.expand(self.feed_norm(x))))
        x = x + self.dropout(feed)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionConfig:
    """Sizes of a `CrossAttentionDecoder`.

    languages: how many can be asked for by a token, each with words of its own.
    """

    vocab_size: int
    width: int = 320
    layers: int = 2
    heads: int = 5
    positions: int = 40
    dropout: float = 0.1
    languages: int = 0


class CrossAttentionDecoder(nn.Module):
    """A small transformer decoder (Vaswani et al. 2017, pre-norm) that reads the prefix as memory.

    The word embeddings are tied to the output head. `logits` scores whole captions for training;
    `forward` is one step of decoding with the cache as explicit inputs and outputs. A row that was
    asked for in a language is continued in that language's words alone (`keep_to`).
    """

    own_words: Tensor
    language_tokens: Tensor

    def __init__(self, config: CrossAttentionConfig):
        super().__init__()
        self.config = config
        width, heads, dropout = config.width, config.heads, config.dropout
        self.width, self.heads = width, heads
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.positions, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        if config.languages:  # row 0: every word, for a row that is in no language
            every = torch.ones(config.languages + 1, config.vocab_size, dtype=torch.bool)
            self.register_buffer("own_words", every)
            self.register_buffer("language_tokens", torch.full((config.languages,), -1))
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        nn.init.normal_(self.positions.weight, std=0.02)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self.tokens.num_embeddings

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.layers

    def state_spec(self) -> list[StateSpec]:
        """The tensors of decoding state, in the order of `forward`'s `states`."""
        head = self.width // self.heads
        asked = [StateSpec("language", (1,))] if self.config.languages else []
        return [
            StateSpec(f"{kind}.{index}", (self.heads, axis, head))
            for index in range(len(self.layers))
            for kind, axis in _STATES
        ] + asked

    def keep_to(self, words: Mapping[int, Tensor]) -> None:
        """Add to the words of all languages, in their order.

        words: int64 (n,) by the token that asks for the language.
        """
        for row, (token, added) in enumerate(words.items(), 1):
            known = self.own_words[row]
            if known.all():  # nothing was told of it yet
                known.fill_(False)
            known[added] = True
            self.language_tokens[row - 1] = token

    def hidden(
        self, tokens: Tensor, prefix: Tensor, owner: Tensor, prefix_mask: Tensor | None = None
    ) -> Tensor:
        """Last hidden states of whole captions, (N, T, width).

        tokens: int64 (N, T), each row beginning with the start token; prefix: float32
        (B, P, width); owner: int64 (N,), the prefix that each caption belongs to; prefix_mask:
        bool (B, P), True where a row may be seen.
        """
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(steps))
        mask = steps[:, None] >= steps
        seen = None if prefix_mask is None else prefix_mask[owner][:, None, None, :]
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            own = layer.self_attention.keys_values(layer.self_norm(x))
            key, value = layer.cross_attention.keys_values(prefix)
            x = layer(x, own, (key[owner], value[owner]), mask, seen)
        hidden: Tensor = self.norm(x)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, (..., vocab_size)."""
        return F.linear(hidden, self.tokens.weight, self.bias)

    def head_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Logits of some tokens alone, int64 (n,): (..., n)."""
        return F.linear(hidden, self.tokens.weight[tokens], self.bias[tokens])

    def forward(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: Tensor | int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One decoding step; only the last position is scored.

        tokens: int64 (N, T); prefix: float32 (N, P, width), P = 0 after the first step; parents:
        int64 (N,), the old row that each row continues; top: how many likeliest tokens; states: as
        `state_spec`, rows on axis 0.
        Returns top log-probabilities (N, top), their ids, logits (N, vocab_size), hidden (N, width)
        and the next states.
        """
        past = states[0].shape[2]
        steps = torch.arange(tokens.shape[1], device=tokens.device) + past
        x = self.tokens(tokens) + self.positions(steps)
        mask = steps[:, None] >= torch.arange(past + tokens.shape[1], device=tokens.device)
        following: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            old = [state[parents] for state in states[4 * index : 4 * index + 4]]
            fresh = (
                *layer.self_attention.keys_values(layer.self_norm(x)),
                *layer.cross_attention.keys_values(prefix),
            )
            now = [torch.cat(pair, 2) for pair in zip(old, fresh, strict=True)]
            x = layer(x, (now[0], now[1]), (now[2], now[3]), mask)
            following += now
        hidden = self.norm(x[:, -1])
        logits = self.head(hidden)
        if self.config.languages:
            language = torch.maximum(states[-1][parents], self._asked(tokens))
            allowed = self.own_words[language[:, 0].long()]
            logits = logits.masked_fill(~allowed, -torch.inf)
            following.append(language)
        best, ids = torch.topk(logits, int(top), dim=1)
        return best - logits.logsumexp(1, keepdim=True), ids, logits, hidden, *following

    def _asked(self, tokens: Tensor) -> Tensor:
        """Float32 (N, 1): which language the tokens ask for, counted from 1; 0 where none."""
        named = (tokens[:, :, None] == self.language_tokens).any(1)
        numbers = torch.arange(1, self.config.languages + 1, device=tokens.device)
        asked: Tensor = (named * numbers).amax(1, keepdim=True).float()
        return asked


_STATES: tuple[tuple[str, Axis], ...] = (
    ("key", "past"),
    ("value", "past"),
    ("memory_key", "memory"),
    ("memory_value", "memory"),
)
