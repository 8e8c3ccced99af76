"""Low-rank adaptation (Hu et al. 2022) of linear layers, merged into them for export.

Written here and not taken from `peft`: that wraps `nn.Linear` and `transformers`' own layers, and
refuses the input-first `Projection` of GPT-2, the language model that is adapted most.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from capsmith.errors import ConfigError
from capsmith.models.gpt2 import Projection


class LowRank(nn.Module):
    """A frozen linear layer plus down @ up * (alpha / rank), the only part that trains.

    `up` is 0 at first: training begins with what the layer was.
    """

    def __init__(self, base: nn.Linear | Projection, rank: int, alpha: float):
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        inputs, outputs = base.weight.shape
        if isinstance(base, nn.Linear):
            inputs, outputs = outputs, inputs
        self.down = nn.Parameter(base.weight.new_empty(inputs, rank).normal_(std=inputs**-0.5))
        self.up = nn.Parameter(base.weight.new_zeros(rank, outputs))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x)
        return output + (x @ self.down) @ self.up * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear | Projection:
        """The layer with the product added to its weight."""
        change = self.down @ self.up * self.scale
        self.base.weight.add_(change.T if isinstance(self.base, nn.Linear) else change)
        return self.base


def add_low_rank(module: nn.Module, *, rank: int, alpha: float) -> None:
    """Give every linear layer inside `module` a low-rank part; nothing else in it trains.

    Raises `ConfigError` where there is no linear layer, as in recurrent models.
    """
    module.requires_grad_(False)
    layers = _children(module, (nn.Linear, Projection))
    if not layers:
        raise ConfigError("LoRA needs linear layers, and this language model's blocks have none")
    for parent, name, layer in layers:
        setattr(parent, name, LowRank(layer, rank, alpha))


def merge_low_rank(module: nn.Module) -> None:
    """Undo `add_low_rank`, keeping what was learned: parameters have their own names again."""
    for parent, name, layer in _children(module, (LowRank,)):
        setattr(parent, name, layer.merged())


def _children(
    module: nn.Module, kinds: tuple[type[nn.Module], ...]
) -> list[tuple[nn.Module, str, Any]]:
    """(parent, attribute, child) of every module of these kinds inside `module`."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    ]
