"""GPT-2 (Radford et al. 2019) as one decoding step, its cache among the inputs and outputs.

Parameters are named and laid out as in `transformers`, so a published state dict loads unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from capsmith.errors import CheckpointError
from capsmith.models.language_models import StateSpec
from capsmith.models.prefixed import PrefixedModel, ranked


@dataclass(frozen=True, slots=True, kw_only=True)
class GPT2Config:
    """Sizes of a GPT-2; the defaults are those of the smallest published one (124 M).

    dropout: of embeddings, attention and both outputs of a block, while training.
    """

    vocab_size: int = 50257
    positions: int = 1024
    width: int = 768
    layers: int = 12
    heads: int = 12
    dropout: float = 0.0


class Projection(Conv1D):
    """x @ weight + bias with weight (inputs, outputs), the layout that GPT-2 is published in."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(outputs, inputs)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        # One product and one sum, which exported graphs and their quantisation know.
        return torch.matmul(x, self.weight) + self.bias


class SelfAttention(nn.Module):
    """Causal self-attention; queries, keys and values come from one product."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.c_attn = Projection(width, 3 * width)
        self.c_proj = Projection(width, width)

    def forward(
        self, x: Tensor, past_key: Tensor, past_value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, T, width) and cache (N, heads, past, head) -> output and longer cache.

        mask: True where a key may be seen; None, with an empty cache, is causal.
        """
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.c_attn(x).chunk(3, 2)
        )
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self.c_proj(mixed.transpose(1, 2).flatten(2)), key, value


class FeedForward(nn.Module):
    """Two projections with the tanh form of GELU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = Projection(width, 4 * width)
        self.c_proj = Projection(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return output


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, heads, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past_key: Tensor, past_value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        mixed, key, value = self.attn(self.ln_1(x), past_key, past_value, mask)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.ln_2(x))), key, value


class GPT2(PrefixedModel):
    """GPT-2 that continues a prefix of vectors; see `LanguageModel`.

    The prefix takes the first positions. The head is tied to the word embeddings.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.width = config.width
        self.positions = config.positions
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.wpe = nn.Embedding(config.positions, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(
            Block(config.width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.ln_f = nn.LayerNorm(config.width)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.01)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self.config.vocab_size

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.h

    def embed(self, tokens: Tensor) -> Tensor:
        """See `PrefixedModel.embed`: word embeddings, to which `read` adds positions."""
        vectors: Tensor = self.wte(tokens)
        return vectors

    def read(self, x: Tensor) -> Tensor:
        """See `PrefixedModel.read`."""
        x = self.dropout(x + self.wpe.weight[: x.shape[1]])
        nothing = x.new_zeros(len(x), self.config.heads, 0, self.width // self.config.heads)
        for block in self.h:
            x, _, _ = block(x, nothing, nothing, None)
        hidden: Tensor = self.ln_f(x)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, (..., vocab_size)."""
        return F.linear(hidden, self.wte.weight)

    def state_spec(self) -> list[StateSpec]:
        """Keys and values of every layer, in the order of `forward`'s `states`."""
        head = self.config.width // self.config.heads
        return [
            StateSpec(f"{kind}.{index}", (self.config.heads, "past", head))
            for index in range(self.config.layers)
            for kind in ("key", "value")
        ]

    def forward(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: Tensor | int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One decoding step; only the last position is scored.

        tokens: int64 (N, T); prefix: float32 (N, P, width), before the tokens, P = 0 after the
        first step; parents: int64 (N,), the old row that each row continues; top: how many
        likeliest tokens; states: as `state_spec`, rows on axis 0.
        Returns top log-probabilities (N, top), their ids, logits (N, vocab_size), hidden (N, width)
        and the next states.
        """
        x = torch.cat([prefix, self.embed(tokens)], 1)
        past = states[0].shape[2]
        steps = torch.arange(x.shape[1], device=x.device) + past
        x = x + self.wpe(steps)
        mask = steps[:, None] >= torch.arange(past + x.shape[1], device=x.device)
        following: list[Tensor] = []
        for index, block in enumerate(self.h):
            key, value = (
                state.index_select(0, parents) for state in states[2 * index : 2 * index + 2]
            )
            x, key, value = block(x, key, value, mask)
            following += [key, value]
        hidden = self.ln_f(x[:, -1])
        logits = self.head(hidden)
        return *ranked(logits, top), logits, hidden, *following


def load_gpt2(state_dict: Mapping[str, Tensor], *, heads: int, dropout: float = 0.0) -> GPT2:
    """The model of a `transformers` `GPT2LMHeadModel` state dict, sizes read from its tensors.

    dropout: what it trains on with; none while it captions.
    Raises `CheckpointError` when tensors are missing or the head is not tied to the embeddings.
    """
    weights = {
        name.removeprefix("transformer."): tensor
        for name, tensor in state_dict.items()
        if not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    try:
        head = weights.pop("lm_head.weight", weights["wte.weight"])
        vocab_size, width = weights["wte.weight"].shape
        positions = weights["wpe.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"not a GPT-2 state dict: {error} is missing") from error
    if not torch.equal(head, weights["wte.weight"]):
        raise CheckpointError("this GPT-2's head is not tied to its embeddings; it must be")
    layers = len({name.split(".")[1] for name in weights if name.startswith("h.")})
    model = GPT2(
        GPT2Config(
            vocab_size=vocab_size,
            positions=positions,
            width=width,
            layers=layers,
            heads=heads,
            dropout=dropout,
        )
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"not a GPT-2 state dict: {' '.join(str(error).split())}") from error
    return model.eval()
