"""What language models share that read a prefix as input vectors before the words."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from capsmith.errors import ConfigError
from capsmith.models.padding import ordered, real_first


class PrefixedModel(nn.Module, ABC):
    """A causal model over input vectors: `width` wide, at most `positions` of them (None: any)."""

    width: int
    positions: int | None = None

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """Input vectors (N, T, width) of tokens int64 (N, T)."""

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """Hidden states (N, S, hidden width) of input vectors (N, S, width), each of which sees
        itself and those before it."""

    def hidden(
        self, tokens: Tensor, prefix: Tensor, owner: Tensor, prefix_mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states (N, P + T, hidden width) of a prefix and the tokens that follow it.

        tokens: int64 (N, T), padded on the right where at all; prefix: float32 (B, P, width);
        owner: int64 (N,), the prefix that each row of tokens belongs to; prefix_mask: bool (B, P),
        True where a row is real: the others are not read and take no position.
        Raises `ConfigError` where the model has too few positions.
        """
        x = torch.cat([prefix[owner], self.embed(tokens)], 1)
        if self.positions is not None and x.shape[1] > self.positions:
            raise ConfigError(
                f"a prefix of {prefix.shape[1]} rows and {tokens.shape[1]} tokens do not fit in the"
                f" language model's {self.positions} positions; shorten one of them"
            )
        if prefix_mask is None:
            return self.read(x)
        mask = torch.cat([prefix_mask[owner], torch.ones_like(tokens, dtype=torch.bool)], 1)
        order, back = real_first(mask)
        return ordered(self.read(ordered(x, order)), back)


def ranked(logits: Tensor, top: Tensor | int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, top) and ids of the likeliest tokens of logits (N, vocab_size)."""
    ids = torch.topk(logits, int(top), dim=1).indices
    return logits.log_softmax(1).gather(1, ids), ids
