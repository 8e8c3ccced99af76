"""What the stages minimise: cross entropy on captions, then CIDEr-D of the captioner's own."""

from __future__ import annotations

from torch import Tensor

from capsmith.evaluate.lexical import CiderD
from capsmith.models.caption_model import CaptionModel
from capsmith.runtime.rules import Rules
from capsmith.training.batches import Batch
from capsmith.training.loop import Objective, Terms
from capsmith.training.self_critical import self_critical_loss


class CaptionObjective(Objective):
    """Cross entropy of every caption's tokens, the end token too."""

    def __init__(self, captioner: CaptionModel, *, label_smoothing: float):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> Terms:
        """{"captions": the mean over tokens}."""
        model = self.captioner
        features = features_of(model, batch.inputs)
        loss = model.loss(
            features, batch.tokens, batch.mask, batch.owner, label_smoothing=self.label_smoothing
        )
        return {"captions": loss}


class RewardObjective(Objective):
    """Self-critical training; `reward` scores token ids against those of the photos' captions."""

    def __init__(self, captioner: CaptionModel, *, reward: CiderD, rules: Rules, captions: int):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.reward, self.rules, self.captions = reward, rules, captions
        self.last_reward = 0.0

    def forward(self, batch: Batch) -> Terms:
        """{"ranking": the loss}; the batch's mean reward is left in `last_reward`."""
        model = self.captioner
        prefix = model.mapper(features_of(model, batch.inputs))
        loss, self.last_reward = self_critical_loss(
            model, prefix, self.reward, batch.photos, rules=self.rules, captions=self.captions
        )
        return {"ranking": loss}


def features_of(model: CaptionModel, inputs: Tensor) -> Tensor:
    """Features float32 (B, k, d) of a batch's inputs, which may be pixels."""
    return inputs if model.encoder is None else model.features(inputs)
