"""Training on captions: cross entropy, then the same captioner by its own samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Steps, peak learning rate, linear warm-up and cosine decay to `floor` of the peak."""

    steps: int
    learning_rate: float
    warmup: int
    floor: float = 0.02
    clip: float = 1.0
    weight_decay: float = 0.05
    average: float = 0.999
    log_every: int = 50
    check_every: int = 500

    def factor(self, step: int) -> float:
        """What the peak learning rate is multiplied with at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Average:
    """Exponential moving average of a module's weights (Polyak averaging)."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.count = decay, 0
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.weights[name].lerp_(parameter, 1 - decay)

    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones."""
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.data, self.weights[name] = self.weights[name], parameter.data


def parameter_groups(
    module: nn.Module, slow: nn.Module, slow_factor: float, schedule: Schedule
) -> list[dict[str, object]]:
    """Weights that decay, biases and norms that do not, and the same two of `slow`, slower."""
    is_slow = {id(parameter) for parameter in slow.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in is_slow, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": schedule.learning_rate * (slow_factor if slowly else 1.0),
            "weight_decay": schedule.weight_decay if decays else 0.0,
        }
        for (slowly, decays), parameters in groups.items()
    ]


def fit(
    model: nn.Module,
    groups: list[dict[str, object]],
    losses: Iterator[dict[str, Tensor]],
    schedule: Schedule,
    *,
    checkpoint: Path,
    check: Callable[[], str],
    log: Log = print,
) -> None:
    """Minimise the sum of each step's losses; checks and checkpoints hold the averaged weights.

    `losses` computes its forward pass when asked for the next step. An existing checkpoint is
    resumed from. `check` is called with the averaged weights in place and returns a line to log.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = Average(model, schedule.average)
    first = _resume(checkpoint, model, optimizer, average) if checkpoint.exists() else 0
    sums: dict[str, float] = {}
    began = time.monotonic()
    for step in range(first, schedule.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule.factor(step)
        terms = next(losses)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        average.update(model)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item() / schedule.log_every
        if (step + 1) % schedule.log_every == 0:
            pace = (time.monotonic() - began) / (step + 1 - first)
            means = "  ".join(f"{name} {value:.4f}" for name, value in sums.items())
            log(f"step {step + 1}/{schedule.steps}  {means}  {pace:.2f} s/step")
            sums.clear()
        if (step + 1) % schedule.check_every == 0 or step + 1 == schedule.steps:
            _save(checkpoint, model, optimizer, average, step + 1)
            average.swap(model)
            model.eval()
            log(f"step {step + 1}  {check()}")
            model.train()
            average.swap(model)


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, step: int
) -> None:
    temporary = path.with_suffix(".tmp")
    content = {
        "model": model.state_dict(),
        "average": average.weights,
        "count": average.count,
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    torch.save(content, temporary)
    temporary.replace(path)


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average
) -> int:
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    average.weights, average.count = content["average"], content["count"]
    step: int = content["step"]
    return step
