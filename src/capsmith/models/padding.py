"""Padding that is not there: real positions are brought to the front before a model reads them.

A causal model that reads real positions first, at positions 0, 1, 2, ..., is not changed by
padding, wherever it stood, and needs no mask.
"""

from __future__ import annotations

import torch
from torch import Tensor


def real_first(mask: Tensor) -> tuple[Tensor, Tensor]:
    """For mask bool (N, S), True where real: the order that brings real positions to the front,
    and the order that brings them back, both int64 (N, S)."""
    order = torch.argsort((~mask).byte(), dim=1, stable=True)
    return order, torch.argsort(order, dim=1)


def ordered(x: Tensor, order: Tensor) -> Tensor:
    """x (N, S) or (N, S, width) with the positions of each row in another order."""
    index = order if x.dim() == 2 else order[:, :, None].expand(-1, -1, x.shape[2])
    return x.gather(1, index)
