"""The loop: batches to losses to weights, on `accelerate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from capsmith.errors import CapsmithError, DivergedError
from capsmith.training.batches import Batch, Batches
from capsmith.training.schedule import Average, Schedule, parameter_groups

Terms = dict[str, Tensor]
"""Parts of a loss by name; their sum is minimised."""


class Objective(nn.Module, ABC):
    """What a stage minimises: a module, so that it can be distributed as a whole.

    `captioner` is the module with the weights.
    """

    captioner: nn.Module

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """The loss of a batch, in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run: an objective, its batches, and how weights change."""

    name: str
    objective: Objective
    batches: Batches
    steps: int
    learning_rate: float
    schedule: Schedule
    average: float
    accumulate: int = 1
    clip: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    encoder: nn.Module | None = None
    encoder_pace: float = 1.0
    seed: int = 0
    workers: int = 0


class Running(Protocol):
    """What a stage is asked for between its steps."""

    def __call__(self, step: int, terms: dict[str, float], learning_rate: float) -> bool:
        """Told after every step; False ends the stage early."""
        ...


@dataclass(slots=True)
class Progress:
    """Where a stage is; kept in its checkpoints."""

    step: int = 0

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from `state_dict`."""
        self.step = state["step"]


class StageRun:
    """A stage prepared for the devices at hand."""

    def __init__(self, stage: Stage, accelerator: Accelerator):
        self.stage, self.accelerator = stage, accelerator
        groups = parameter_groups(
            stage.objective, stage.encoder, learning_rate=stage.learning_rate,
            pace=stage.encoder_pace, decay=stage.weight_decay,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(groups, betas=stage.betas, fused=True)
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self.objective, self._optimizer = accelerator.prepare(stage.objective, optimizer)
        self.average = Average(self.objective, stage.average) if stage.average else None
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.progress)
        if self.average is not None:
            accelerator.register_for_checkpointing(self.average)

    def run(self, after_step: Running) -> None:
        """Take the steps that are left.

        A step's randomness follows from seed and step alone, so that a run that was stopped goes
        on as if it had not been. Raises `DivergedError` where the loss is not a number.
        """
        stage = self.stage
        first = self.progress.step * stage.accumulate
        numbers = range(first, stage.steps * stage.accumulate)
        reader = DataLoader(
            _Reading(stage.batches), batch_size=None, sampler=numbers, num_workers=stage.workers
        )
        self.objective.train()
        for step, group in enumerate(_grouped(reader, stage.accumulate), self.progress.step):
            terms = self._step(step, group)
            self.progress.step = step + 1
            if not after_step(step + 1, terms, self._optimizer.param_groups[0]["lr"]):
                return

    def _step(self, step: int, batches: Iterable[Batch]) -> dict[str, float]:
        stage, accelerator = self.stage, self.accelerator
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * stage.schedule.factor(step)
        sums: dict[str, float] = {}
        for part, batch in enumerate(batches):
            number = step * stage.accumulate + part
            torch.manual_seed((stage.seed * 1_000_003 + number) * 64 + accelerator.process_index)
            with accelerator.accumulate(self.objective):
                terms: Terms = self.objective(batch.to(accelerator.device))
                loss = torch.stack(list(terms.values())).sum()
                self._refuse_nan(loss, number, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.objective.parameters(), stage.clip)
                self._optimizer.step()
                self._optimizer.zero_grad()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.item() / stage.accumulate
        if self.average is not None:
            self.average.update(self.objective)
        return sums

    def _refuse_nan(self, loss: Tensor, number: int, batch: Batch) -> None:
        if torch.isfinite(loss):
            return
        photos = [self.stage.batches.order.examples.photos[i].id for i in batch.photos[:3]]
        raise DivergedError(
            f"the loss is {loss.item()} at batch {number} of stage {self.stage.name} (photos"
            f" {', '.join(photos)}, ...); lower training.learning_rate, or look at these photos"
        )

    def averaged(self, look: Callable[[], Any]) -> Any:
        """What `look` returns with the averaged weights in place, in evaluation mode."""
        if self.average is not None:
            self.average.swap(self.objective)
        self.objective.eval()
        try:
            return look()
        finally:
            self.objective.train()
            if self.average is not None:
                self.average.swap(self.objective)


class _Reading(Dataset[Batch | CapsmithError]):
    """Batches, or what is wrong with them: errors raised in a worker arrive wrapped."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, number: int) -> Batch | CapsmithError:
        try:
            return self.batches[number]
        except CapsmithError as error:
            return error


def _grouped(batches: Iterable[Batch | CapsmithError], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        if isinstance(batch, CapsmithError):
            raise batch
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
