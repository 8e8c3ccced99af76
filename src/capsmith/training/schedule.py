"""Learning rates over a run, and the moving average of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear rise over `warmup` steps, then a fall to `floor` of the peak at the last step."""

    steps: int
    warmup: int
    shape: Literal["linear", "cosine", "constant"] = "linear"
    floor: float = 0.0

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied with at a step, counted from 0.

        The first is not 0: a step that changes nothing is none.
        """
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.shape == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        fall = 1 - done if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.floor + (1 - self.floor) * fall


class Average:
    """Exponential moving average of the weights that train (Polyak averaging)."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.count = decay, 0
        self.weights = {name: p.detach().clone() for name, p in _trainable(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step; the first ones count more, as there are few."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, parameter in _trainable(module).items():
            self.weights[name].lerp_(parameter, 1 - decay)

    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones."""
        for name, parameter in _trainable(module).items():
            parameter.data, self.weights[name] = self.weights[name], parameter.data

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.count, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.count = state["count"]
        for name, tensor in self.weights.items():
            tensor.copy_(state["weights"][name])


def parameter_groups(
    module: nn.Module, slow: nn.Module | None, *, learning_rate: float, pace: float, decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimiser: biases and norms do not decay; `slow` has `pace` times the rate."""
    is_slow = {id(parameter) for parameter in slow.parameters()} if slow is not None else set()
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for parameter in _trainable(module).values():
        groups.setdefault((id(parameter) in is_slow, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (pace if slowly else 1.0),
            "weight_decay": decay if decays else 0.0,
        }
        for (slowly, decays), parameters in groups.items()
    ]


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
