"""What the stages minimise: cross entropy on captions, then CIDEr-D of the captioner's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from capsmith.evaluate.lexical import CiderD
from capsmith.models.caption_model import CaptionModel
from capsmith.runtime.rules import Rules
from capsmith.training.batches import Batch
from capsmith.training.beside import TextsWithHints
from capsmith.training.loop import Objective, Terms
from capsmith.training.self_critical import self_critical_loss


class CaptionObjective(Objective):
    """Cross entropy of every caption's tokens, the end token too, and the losses beside it.

    beside: name -> (weight, loss).
    """

    def __init__(
        self,
        captioner: CaptionModel,
        *,
        label_smoothing: float,
        beside: Mapping[str, tuple[float, nn.Module]] | None = None,
    ):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.label_smoothing = label_smoothing
        self.weights = {name: weight for name, (weight, _) in (beside or {}).items()}
        self.beside = nn.ModuleDict({name: loss for name, (_, loss) in (beside or {}).items()})

    def forward(self, batch: Batch) -> Terms:
        """The captions' mean over tokens, and each loss beside it times its weight, by name."""
        model = self.captioner
        features = features_of(model, batch.inputs)
        prefix = model.mapper(features)
        terms = {"captions": self._captions(prefix, batch)}
        for name, loss in self.beside.items():
            value = loss(model) if isinstance(loss, TextsWithHints) else loss(batch, features)
            terms[name] = self.weights[name] * value
        return terms

    def _captions(self, prefix: Tensor, batch: Batch) -> Tensor:
        """Short and long captions go apart where lengths differ much, which saves padding."""
        lengths = batch.mask.sum(1)
        order = lengths.argsort()
        halves = [order]
        if int(lengths[order[len(order) // 2]]) < 0.8 * int(lengths.max()):
            halves = [order[: len(order) // 2], order[len(order) // 2 :]]
        total, count = prefix.new_zeros(()), 0
        for rows in halves:
            longest = int(lengths[rows].max())
            loss = self.captioner.prefix_loss(
                prefix, batch.tokens[rows, :longest], batch.mask[rows, :longest],
                batch.owner[rows], label_smoothing=self.label_smoothing,
            )  # fmt: skip
            tokens = int(lengths[rows].sum()) - len(rows) * self.captioner.prompt_length
            total, count = total + loss * tokens, count + tokens
        return total / count


class RewardObjective(Objective):
    """Self-critical training; `reward` scores token ids against those of the photos' captions."""

    def __init__(self, captioner: CaptionModel, *, reward: CiderD, rules: Rules, captions: int):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.reward, self.rules, self.captions = reward, rules, captions

    def forward(self, batch: Batch) -> Terms:
        """{"ranking": the loss of `self_critical_loss`}."""
        model = self.captioner
        with torch.no_grad():  # an encoder has learned what it can from words
            features = features_of(model, batch.inputs)
        prefix = model.mapper(features)
        loss, _ = self_critical_loss(
            model, prefix, self.reward, batch.photos, rules=self.rules, captions=self.captions
        )
        return {"ranking": loss}


def features_of(model: CaptionModel, inputs: Tensor) -> Tensor:
    """Features float32 (B, k, d) of a batch's inputs, which may be pixels."""
    return inputs if model.encoder is None else model.features(inputs)
