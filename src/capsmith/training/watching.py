"""Between the steps of a stage: what is logged, validated, exported and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import broadcast_object_list

from capsmith.models.caption_model import CaptionModel
from capsmith.runtime.pictures import open_picture
from capsmith.runtime.preprocess import to_pixels
from capsmith.training import checkpoint
from capsmith.training.best import BestBundle
from capsmith.training.checkpoint import Standing
from capsmith.training.config import Validation
from capsmith.training.loop import StageRun
from capsmith.training.report import Metrics
from capsmith.training.validation import Score, Validator, collapse

Log = Callable[[str], None]

_LOG_EVERY_S = 10.0
_RECORD_EVERY = 20
"""Steps between rows of losses: by steps and not by time, so that runs can be compared."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a run's findings go. Only the main process has a validator and writes."""

    output: Path
    log: Log
    metrics: Metrics
    tracker: Accelerator
    validator: Validator
    best: BestBundle


@dataclass(slots=True)
class Watching:
    """Told after every step of a stage; validates, keeps the best, writes checkpoints.

    every: steps between validations. first_stage: weights that the stage's own are blended with
    before they are validated; share: how much the stage's own count.
    """

    desk: Desk
    run: StageRun
    model: CaptionModel
    validation: Validation
    standing: Standing
    every: int
    first_stage: Mapping[str, torch.Tensor] = field(default_factory=dict)
    share: float = 1.0
    _sums: dict[str, float] = field(default_factory=dict)
    _count: int = 0
    _began: float = field(default_factory=time.monotonic)
    _began_at: int | None = None
    _logged: float = 0.0

    def __call__(self, step: int, terms: dict[str, float], learning_rate: float) -> bool:
        """See `loop.Running`."""
        if self._began_at is None:
            self._began_at = step - 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        steps = self.run.stage.steps
        is_last = step == steps
        validates = is_last or step % self.every == 0
        is_kept = validates or step % self.validation.checkpoint_every == 0
        if validates or time.monotonic() - self._logged > _LOG_EVERY_S:
            self._tell_pace(step)
        if is_kept or step % _RECORD_EVERY == 0:
            self._record(step, learning_rate)
        self.standing = replace(self.standing, step=step)
        if validates:
            self._validate(step)
            (self.standing,) = broadcast_object_list([self.standing])
        patience = self.validation.patience
        is_over = is_last or (0 < patience <= self.standing.stale)
        if is_kept:
            self._save(is_over)
        return not is_over

    def look_first(self) -> None:
        """Validate what training starts from: only what is better than it becomes the best."""
        self._validate(0)
        (self.standing,) = broadcast_object_list([self.standing])

    def _record(self, step: int, learning_rate: float) -> None:
        """Write the mean of each loss since the last row."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        stage = self.run.stage
        self.desk.metrics.add(
            stage=stage.name, step=step, loss=sum(means.values()), learning_rate=learning_rate,
            **means,
        )  # fmt: skip
        self.desk.tracker.log(
            {f"{stage.name}/{name}": value for name, value in means.items()}
            | {f"{stage.name}/learning_rate": learning_rate},
            step=step,
        )

    def _tell_pace(self, step: int) -> None:
        """Say the loss of the last steps, and how long the stage still takes."""
        self._logged = time.monotonic()
        loss = sum(self._sums.values()) / self._count
        stage = self.run.stage
        pace = (time.monotonic() - self._began) / max(1, step - (self._began_at or 0))
        left = pace * (stage.steps - step)
        self.desk.log(
            f"{stage.name} {step}/{stage.steps}  loss {loss:.4f}  {1 / pace:.2f} steps/s "
            f" {_clock(left)} left"
        )

    def _validate(self, step: int) -> None:
        if not self.run.accelerator.is_main_process:
            return

        def look() -> tuple[Score, bool]:
            with _Blend(self.model, self.first_stage, self.share):
                score = self.desk.validator.score(self.model)
                is_best = score.cider > self.standing.best
                if is_best:
                    self.desk.best.write(score)
                    self._keep_weights()
            return score, is_best

        score, is_best = self.run.averaged(look)
        if is_best:
            self.standing = replace(self.standing, best=score.cider, best_step=step, stale=0)
        else:
            self.standing = replace(self.standing, stale=self.standing.stale + 1)
        self._tell(step, score, is_best=is_best)

    def _keep_weights(self) -> None:
        """The best weights of the first stage are where the second begins."""
        path = self.desk.output / "best.safetensors"
        temporary = path.with_suffix(".tmp")
        with checkpoint.writing(path):
            safetensors.torch.save_file(checkpoint.weights_of(self.model), temporary)
        temporary.replace(path)

    def _tell(self, step: int, score: Score, *, is_best: bool) -> None:
        desk, stage = self.desk, self.run.stage.name
        result = score.report
        several = score.reports if len(score.reports) > 1 else {}
        found = {"cider": score.cider, "bleu4": result.bleu[3].value} | {
            f"cider_{language}": own.cider.value for language, own in several.items()
        }
        desk.metrics.add(stage=stage, step=step, val_loss=score.loss, **found)
        desk.tracker.log(
            {"val/loss": score.loss} | {f"val/{name}": value for name, value in found.items()},
            step=step,
        )
        desk.log(
            f"{stage} {step}  val loss {score.loss:.4f}  CIDEr {score.cider:.3f}  BLEU-4"
            f" {result.bleu[3].value:.3f}{'  best so far' if is_best else ''}"
        )
        if several:
            ciders = (f"{name} {own.cider.value:.3f}" for name, own in several.items())
            desk.log(f"  CIDEr by language: {', '.join(ciders)}")
        samples = list(zip(desk.validator.photos, score.captions, strict=True))
        for photo, caption in samples[: min(2, self.validation.samples)]:
            desk.log(f"  {photo.id}: {caption}")
        warning = collapse(score.captions)
        if warning:
            desk.log(f"warning: {warning}")
        _show_samples(desk, samples[: self.validation.samples], step)

    def _save(self, is_over: bool) -> None:
        standing = replace(self.standing, is_finished=is_over)
        checkpoint.save(
            self.desk.output, standing, self.run.accelerator,
            weights=self.run.averaged(lambda: checkpoint.weights_of(self.model)),
        )  # fmt: skip


class _Blend:
    """A context in which a model's weights are mixed with others."""

    def __init__(self, model: CaptionModel, others: Mapping[str, torch.Tensor], share: float):
        self.model, self.others, self.share = model, others, share
        self._own: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        if self.others and self.share < 1:
            self._own = checkpoint.weights_of(self.model)
            mixed = {
                name: torch.lerp(self.others[name].to(own.device), own, self.share)
                if own.is_floating_point()
                else own
                for name, own in self._own.items()
            }
            self.model.load_state_dict(mixed)

    def __exit__(self, *_: object) -> None:
        if self._own:
            self.model.load_state_dict(self._own)


def _show_samples(desk: Desk, samples: list[tuple[Any, str]], step: int) -> None:
    """Photos with their captions, for TensorBoard."""
    tracker: GeneralTracker = desk.tracker.get_tracker("tensorboard")
    if not samples or not isinstance(tracker, GeneralTracker):
        return
    writer = tracker.tracker
    seen = desk.best.assembly.description.preprocessing
    for number, (photo, caption) in enumerate(samples):
        writer.add_text(f"captions/{number}", f"{photo.id}: {caption}", step)
        pixels = to_pixels(open_picture(photo.source.picture()), seen)
        mean = torch.tensor(seen.mean)[:, None, None]
        std = torch.tensor(seen.std)[:, None, None]
        writer.add_image(
            f"photos/{number}", (torch.from_numpy(pixels) * std + mean).clamp(0, 1), step
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
