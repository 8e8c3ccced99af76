"""Llama (Touvron et al. 2023) and its relatives: SmolLM, Qwen2.

RMS norms, rotary positions (Su et al. 2021), grouped-query attention (Ainslie et al. 2023) and
SwiGLU (Shazeer 2020). Parameters are named as in `transformers`, so a published state dict loads
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.models.language_models import StateSpec
from capsmith.models.prefixed import PrefixedModel, ranked


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Sizes; the defaults are those of SmolLM-135M.

    head_width: of one head; None is width / heads. has_attention_bias: queries, keys and values
    have a bias, as in Qwen2. is_tied: the head is the word embeddings. dropout: of attention and
    both outputs of a block, while training; the published models have none.
    """

    vocab_size: int = 49152
    positions: int = 2048
    width: int = 576
    layers: int = 30
    heads: int = 9
    key_value_heads: int = 3
    head_width: int | None = None
    feed_width: int = 1536
    rotary_base: float = 10000.0
    norm_epsilon: float = 1e-5
    has_attention_bias: bool = False
    is_tied: bool = True
    dropout: float = 0.0


class RMSNorm(nn.Module):
    """x over its root mean square (Zhang & Sennrich 2019), in float32 whatever x is."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normal = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * normal.to(x.dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + head/2) of x (N, heads, T, head) by its angle, (T, head / 2)."""
    first, second = x.chunk(2, 3)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], 3)


class SelfAttention(nn.Module):
    """Causal self-attention in which groups of queries share keys and values."""

    def __init__(self, config: LlamaConfig, head: int):
        super().__init__()
        self.head, self.groups = head, config.heads // config.key_value_heads
        self.dropout = config.dropout
        outputs, shared = config.heads * head, config.key_value_heads * head
        bias = config.has_attention_bias
        self.q_proj = nn.Linear(config.width, outputs, bias=bias)
        self.k_proj = nn.Linear(config.width, shared, bias=bias)
        self.v_proj = nn.Linear(config.width, shared, bias=bias)
        self.o_proj = nn.Linear(outputs, config.width, bias=False)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, T, width) and cache (N, key_value_heads, past, head) -> output and longer cache.

        Keys are kept already turned. past None is an empty cache, for whole captions.
        """
        query, key, value = (
            project(x).unflatten(2, (-1, self.head)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(query, *angles), rotate(key, *angles)
        if past is None:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=True, enable_gqa=True
            )
        else:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            mixed = self._attend(query, key, value)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the last positions, (N, heads, T, head), to all of a cache.

        Queries that share keys are read as more positions of one head: no key is copied.
        """
        rows, heads, length, head = query.shape
        total = key.shape[2]
        steps = torch.arange(length, device=query.device) + (total - length)
        mask = steps.repeat(self.groups)[:, None] >= torch.arange(total, device=query.device)
        grouped = query.reshape(rows, heads // self.groups, self.groups * length, head)
        mixed = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask)
        return mixed.reshape(rows, heads, length, head)


class SwiGLU(nn.Module):
    """Feed-forward layer with a gate."""

    def __init__(self, width: int, feed_width: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, feed_width, bias=False)
        self.up_proj = nn.Linear(width, feed_width, bias=False)
        self.down_proj = nn.Linear(feed_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: LlamaConfig, head: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = SelfAttention(config, head)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = SwiGLU(config.width, config.feed_width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        mixed, key, value = self.self_attn(self.input_layernorm(x), angles, past)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x))), key, value


class Llama(PrefixedModel):
    """A Llama-style model that continues a prefix of vectors; see `LanguageModel`."""

    frequencies: Tensor

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.width, self.positions = config.width, config.positions
        self.head_width = config.head_width or config.width // config.heads
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config, self.head_width) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.lm_head = (
            None if config.is_tied else nn.Linear(config.width, config.vocab_size, bias=False)
        )
        exponents = torch.arange(0, self.head_width, 2) / self.head_width
        self.register_buffer("frequencies", config.rotary_base**-exponents, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that are scored."""
        return self.config.vocab_size

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.layers

    def angles(self, length: int, past: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (length, head / 2) of the turns at the positions after `past`."""
        steps = torch.arange(length, device=self.frequencies.device) + past
        turns = steps[:, None] * self.frequencies
        return turns.cos(), turns.sin()

    def embed(self, tokens: Tensor) -> Tensor:
        """See `PrefixedModel.embed`."""
        vectors: Tensor = self.embed_tokens(tokens)
        return vectors

    def read(self, x: Tensor) -> Tensor:
        """See `PrefixedModel.read`."""
        angles = self.angles(x.shape[1], 0)
        for block in self.layers:
            x, _, _ = block(x, angles, None)
        hidden: Tensor = self.norm(x)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, (..., vocab_size)."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden, weight)

    def state_spec(self) -> list[StateSpec]:
        """Keys and values of every layer, in the order of `forward`'s `states`."""
        return [
            StateSpec(f"{kind}.{index}", (self.config.key_value_heads, "past", self.head_width))
            for index in range(self.config.layers)
            for kind in ("key", "value")
        ]

    def forward(
        self, tokens: Tensor, prefix: Tensor, parents: Tensor, top: Tensor | int, *states: Tensor
    ) -> tuple[Tensor, ...]:
        """One decoding step; only the last position is scored. See `GPT2.forward`."""
        x = torch.cat([prefix, self.embed(tokens)], 1)
        angles = self.angles(x.shape[1], states[0].shape[2])
        following: list[Tensor] = []
        for index, block in enumerate(self.layers):
            old_key, old_value = (
                state.index_select(0, parents) for state in states[2 * index : 2 * index + 2]
            )
            x, key, value = block(x, angles, (old_key, old_value))
            following += [key, value]
        hidden = self.norm(x[:, -1])
        logits = self.head(hidden)
        return *ranked(logits, top), logits, hidden, *following
