"""Contrastive training of a text tower beside an image encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capsmith.data.manifest import Photo
from capsmith.data.watch import Watch, unwatched
from capsmith.errors import DataError, DivergedError
from capsmith.models.text_tower import END_ID, PAD_ID, TextTower
from capsmith.training.schedule import Average, Schedule, parameter_groups
from capsmith.training.tower_recipe import TowerTraining


@dataclass(frozen=True, slots=True)
class Whitening:
    """Directions in which photos of one encoder differ, scaled so that they vary alike.

    basis: float32 (d, k). Embeddings share a large mean, and differ far more along some directions
    than along others: a tower whose outputs are coordinates along `basis` begins where photos are
    told apart, and every coordinate learns at the same pace. The basis is orthogonal to the mean,
    which then adds nothing to any cosine.
    """

    basis: Tensor

    def coordinates(self, photos: Tensor) -> Tensor:
        """Coordinates float32 (n, k) of embeddings float32 (n, d)."""
        return photos @ self.basis

    def lengths(self, coordinates: Tensor) -> Tensor:
        """Lengths float32 (n, 1) of the embeddings that coordinates (n, k) stand for."""
        own = self.basis.norm(dim=0)  # the columns are orthogonal
        lengths: Tensor = (coordinates * own).norm(dim=1, keepdim=True)
        return lengths.clamp(min=1e-12)


def whitening(photos: Tensor, rank: int) -> Whitening:
    """The whitening of embeddings float32 (n, d), of at most `rank` directions."""
    mean = F.normalize(photos.mean(0), dim=0)
    rest = photos - (photos @ mean).unsqueeze(1) * mean
    rest = rest - rest.mean(0)
    variances, directions = torch.linalg.eigh(rest.T @ rest / len(photos))  # rising variance
    count = min(rank, max(1, int((variances > variances[-1] * 1e-6).sum())))
    kept = directions[:, -count:].flip(1) / variances[-count:].flip(0).clamp(min=1e-12).sqrt()
    return Whitening(kept.contiguous())


@dataclass(frozen=True, slots=True)
class Captions:
    """Tokens of all captions, and which of them are each photo's.

    first: int64 (photos + 1,): photo i has the captions first[i] to first[i + 1]; ends: float64,
    running sums of their weights.
    """

    tokens: tuple[tuple[int, ...], ...]
    first: np.ndarray[tuple[int], np.dtype[np.int64]]
    ends: np.ndarray[tuple[int], np.dtype[np.float64]]

    def draw(self, photos: Sequence[int], rng: np.random.Generator) -> list[int]:
        """One caption of each photo, by weight."""
        chosen = []
        for photo, mark in zip(photos, rng.random(len(photos)), strict=True):
            begin, end = self.first[photo], self.first[photo + 1]
            before = self.ends[begin - 1] if begin else 0.0
            where = before + mark * (self.ends[end - 1] - before)
            chosen.append(min(int(np.searchsorted(self.ends, where, side="right")), int(end) - 1))
        return chosen


def tokenise(photos: Sequence[Photo], tokenizer: tokenizers.Tokenizer, max_tokens: int) -> Captions:
    """The captions of photos, cut after `max_tokens` (0: where the tokenizer cuts)."""
    lines = [caption for photo in photos for caption in photo.captions]
    found = tokenizer.encode_batch_fast([line.text for line in lines])
    return Captions(
        tokens=tuple(tuple(each.ids[: max_tokens or None]) for each in found),
        first=np.cumsum([0, *(len(photo.captions) for photo in photos)]),
        ends=np.cumsum([line.weight for line in lines]),
    )


def padded(tokens: Sequence[Sequence[int]]) -> Tensor:
    """Token ids of several texts as int64 (n, longest)."""
    longest = max(map(len, tokens))
    return torch.tensor([[*each, *[PAD_ID] * (longest - len(each))] for each in tokens])


def train_tower(
    tower: TextTower,
    captions: Captions,
    photos: Tensor,
    settings: TowerTraining,
    *,
    watch: Watch = unwatched,
) -> TextTower:
    """Train a tower whose outputs are coordinates; the tower returned gives embeddings.

    photos: embeddings float32 (n, d) of length 1, in the order of `captions`. Every step minimises
    the symmetric cross entropy of Radford et al. 2021 between photos and one caption of each, so
    that captions of one photo are never set against each other. Raises `DivergedError` where the
    loss is not a number any more.
    """
    space = whitening(photos, settings.rank)
    targets = space.coordinates(photos)
    tower.projection = nn.Linear(tower.config.width, targets.shape[1], bias=False)
    rng = np.random.default_rng(settings.seed)
    groups = parameter_groups(
        tower, None, learning_rate=settings.learning_rate, pace=1.0, decay=settings.weight_decay
    )
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    schedule = Schedule(steps=settings.steps, warmup=settings.warmup, shape="cosine")
    average = Average(tower, settings.average)
    order = _Order(len(photos), settings.batch, rng)
    tower.train()
    for step in watch(range(settings.steps), settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule.factor(step)
        chosen = order.next()
        tokens = padded([captions.tokens[i] for i in captions.draw(chosen, rng)])
        tokens = _without_some(tokens, settings.word_dropout)
        made = tower(tokens)
        cosines = made @ targets[chosen].T / space.lengths(made)
        loss = contrastive_loss(cosines * tower.scale)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the tower's loss is not a number at step {step + 1}; lower training.learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        average.update(tower)
    average.swap(tower)
    return _in_embeddings(tower.eval(), space)


def contrastive_loss(logits: Tensor) -> Tensor:
    """Mean cross entropy of logits (n, n), of rows and of columns; the diagonal is right."""
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class _Order:
    """Photos in random order, each once before any comes again."""

    def __init__(self, count: int, batch: int, rng: np.random.Generator):
        if count < 2:
            raise DataError("a text tower needs two photos or more to tell apart; add data")
        self._count, self._batch, self._rng = count, min(batch, count), rng
        self._left: list[int] = []

    def next(self) -> list[int]:
        if len(self._left) < self._batch:  # the few left over wait for another turn
            self._left = self._rng.permutation(self._count).tolist()
        drawn, self._left = self._left[: self._batch], self._left[self._batch :]
        return drawn


def _without_some(tokens: Tensor, share: float) -> Tensor:
    """Tokens (n, length) with a share of them made padding, but never all: the end stays."""
    if not share:
        return tokens
    is_gone = (torch.rand(tokens.shape) < share) & (tokens != END_ID)
    return tokens.masked_fill(is_gone, PAD_ID)


@torch.no_grad()
def _in_embeddings(tower: TextTower, space: Whitening) -> TextTower:
    """The tower with the basis multiplied into its projection."""
    wide = nn.Linear(tower.config.width, space.basis.shape[0], bias=False)
    wide.weight.copy_(space.basis @ tower.projection.weight)
    tower.projection = wide
    return tower
