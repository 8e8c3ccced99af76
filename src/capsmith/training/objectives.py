"""What the stages minimise: cross entropy on captions, then CIDEr-D of the captioner's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capsmith.evaluate.lexical import CiderD
from capsmith.models.caption_model import CaptionModel
from capsmith.runtime.rules import Rules
from capsmith.training.batches import Batch
from capsmith.training.beside import TextsWithHints
from capsmith.training.examples import Examples
from capsmith.training.loop import Objective, Terms
from capsmith.training.own_words import OwnWords
from capsmith.training.self_critical import self_critical_loss

_REFERENCES = 5
"""Captions of a photo that a reward is measured against, as many as COCO has."""


class CaptionObjective(Objective):
    """Cross entropy of every caption's tokens, the end token too, and the losses beside it.

    beside: name -> (weight, loss). words: those that a caption's words are told from; default: all.
    """

    def __init__(
        self,
        captioner: CaptionModel,
        *,
        label_smoothing: float,
        beside: Mapping[str, tuple[float, nn.Module]] | None = None,
        words: OwnWords | None = None,
    ):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.label_smoothing = label_smoothing
        self.words = words or OwnWords({}, captioner.reader.vocab_size)
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
        lengths = batch.mask.sum(1)
        total, count = prefix.new_zeros(()), 0
        for rows, among in self._groups(batch, lengths):
            longest = int(lengths[rows].max())
            loss = self.captioner.prefix_loss(
                prefix, batch.tokens[rows, :longest], batch.mask[rows, :longest],
                batch.owner[rows], among=among, label_smoothing=self.label_smoothing,
            )  # fmt: skip
            tokens = int(lengths[rows].sum()) - len(rows) * self.captioner.prompt_length
            total, count = total + loss * tokens, count + tokens
        return total / count

    def _groups(self, batch: Batch, lengths: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Rows that are computed together, and the tokens that their words are told from.

        Captions of one language, or short and long ones apart where lengths differ much, which
        saves padding.
        """
        if self.words.tokens:
            spoken = batch.tokens[:, len(self.captioner.start_tokens)]
            rows = {
                language: (spoken == token).nonzero()[:, 0]
                for language, token in self.captioner.language_tokens.items()
            }
            return [(own, self.words.among(language)) for language, own in rows.items() if len(own)]
        order = lengths.argsort()
        if int(lengths[order[len(order) // 2]]) >= 0.8 * int(lengths.max()):
            return [(order, None)]
        return [(order[: len(order) // 2], None), (order[len(order) // 2 :], None)]


@dataclass(frozen=True, slots=True)
class Spoken:
    """What captions in one language are rewarded by, and how they are searched.

    photos: index of a photo in the examples -> its index in the reward. weights: of the same
    photos, how often they are captioned in the language, beside others. words: int64 (n,), the
    tokens that decoding keeps to in the language; None for all.
    """

    reward: CiderD
    rules: Rules
    photos: Mapping[int, int]
    weights: Mapping[int, float]
    words: Tensor | None = None


def rewarded(
    examples: Examples,
    language: str,
    rules: Rules,
    *,
    stop: int,
    times: float = 1.0,
    words: Tensor | None = None,
) -> Spoken:
    """Photos with captions in a language, and what captions of them are rewarded by.

    times: a factor of the captions' weights; words: as `Spoken` has them.
    """
    references: list[list[tuple[int, ...]]] = []
    photos: dict[int, int] = {}
    weights: dict[int, float] = {}
    for photo, own in enumerate(examples.of_photo):
        every = (examples.lines[i] for i in own)
        lines = [line for line in every if line.language == language]
        if lines:
            photos[photo] = len(references)
            weights[photo] = times * sum(line.weight for line in lines)
            references.append([(*line.ids, stop) for line in lines[:_REFERENCES]])
    return Spoken(CiderD(references), rules, photos, weights, words)


class RewardObjective(Objective):
    """Self-critical training; each photo is captioned in one of its languages, drawn by weight."""

    def __init__(self, captioner: CaptionModel, *, spoken: Sequence[Spoken], captions: int):
        super().__init__()
        self.captioner: CaptionModel = captioner
        self.spoken, self.captions = spoken, captions

    def forward(self, batch: Batch) -> Terms:
        """{"ranking": the mean of `self_critical_loss` over photos}."""
        model = self.captioner
        with torch.no_grad():  # an encoder has learned what it can from words
            features = features_of(model, batch.inputs)
        prefix = model.mapper(features)
        total = prefix.new_zeros(())
        for spoken, rows in self._dealt(batch.photos):
            loss, _ = self_critical_loss(
                model, prefix[rows], spoken.reward,
                [spoken.photos[batch.photos[row]] for row in rows],
                rules=spoken.rules, captions=self.captions, among=spoken.words,
            )  # fmt: skip
            total = total + loss * len(rows) / len(batch.photos)
        return {"ranking": total}

    def _dealt(self, photos: Sequence[int]) -> list[tuple[Spoken, list[int]]]:
        """The rows of the batch that are captioned in each language."""
        rng = random.Random(torch.initial_seed())
        rows: list[list[int]] = [[] for _ in self.spoken]
        for row, photo in enumerate(photos):
            weights = [spoken.weights.get(photo, 0.0) for spoken in self.spoken]
            rng.choices(rows, weights)[0].append(row)
        return [(spoken, own) for spoken, own in zip(self.spoken, rows, strict=True) if own]


def features_of(model: CaptionModel, inputs: Tensor) -> Tensor:
    """Features float32 (B, k, d) of a batch's inputs, which may be pixels."""
    return inputs if model.encoder is None else model.features(inputs)
