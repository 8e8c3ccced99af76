"""Mappers: from an encoder's features to the prefix of a language model.

Parameters of the ancestors' mappers are named as in their checkpoints, so that those load
unchanged. Mappers with attention are in `transformer_mappers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class MapperConfig:
    """Sizes that every mapper has.

    normalise: divide each row of the features by its L2 norm first. It is part of the mapper, and
    so of its graph: training and captioning cannot disagree about it.
    """

    input_width: int
    rows: int
    width: int
    normalise: bool = False


class Mapper(nn.Module, ABC):
    """Features float32 (B, k, input_width) to a prefix float32 (B, rows, width).

    Mappers of one vector read the first row of the features, which in encoders that give more is
    the pooled one.
    """

    Config: ClassVar[type[MapperConfig]] = MapperConfig

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config: Any = config

    def forward(self, features: Tensor) -> Tensor:
        """Normalise where the config says so, then map."""
        if self.config.normalise:
            features = F.normalize(features, dim=2)
        return self.map(features)

    @abstractmethod
    def map(self, features: Tensor) -> Tensor:
        """The prefix (B, rows, width) of features that are normalised already."""


class LinearMapper(Mapper):
    """One linear layer, as ClipCap's published predictor has for prefixes over 10 rows."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.input_width, config.rows * config.width)

    def map(self, features: Tensor) -> Tensor:
        rows: Tensor = self.project(features[:, 0]).unflatten(1, (-1, self.config.width))
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPConfig(MapperConfig):
    """hidden: width of the middle layer; None is half of the outputs, as in ClipCap."""

    hidden: int | None = None


class MLPMapper(Mapper):
    """Two linear layers with tanh between them (ClipCap, Mokady et al. 2021)."""

    Config = MLPConfig

    def __init__(self, config: MLPConfig) -> None:
        super().__init__(config)
        outputs = config.rows * config.width
        hidden = config.hidden or outputs // 2
        self.model = nn.Sequential(
            nn.Linear(config.input_width, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
        )

    def map(self, features: Tensor) -> Tensor:
        rows: Tensor = self.model(features[:, 0]).unflatten(1, (-1, self.config.width))
        return rows


class HintedGridMapper(nn.Module):
    """Grid features and the encoder's own class names as words, refined by one transformer layer.

    Features (B, rows, width_in) become `rows` prefix vectors; the `hints` likeliest words of the
    encoder's classes follow as `hints` more, so that the language model can name what few captioned
    photos show. The words are also given with captions that have no photo (`of_words`), which is
    how they get their meaning (entity hints as in ViECap, Fei et al. 2023, here from a classifier).

    class_words: float32 (classes, words), 1 where a class is called by a word. A word's
    probability is the sum over its classes.
    """

    class_words: Tensor

    def __init__(
        self,
        class_words: Tensor,
        rows: int = 37,
        width_in: int = 1280,
        width: int = 320,
        hints: int = 5,
        heads: int = 5,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.hints = hints
        classes, words = class_words.shape
        self.register_buffer("class_words", class_words)
        self.classifier = nn.Linear(width_in, classes)
        self.norm = nn.LayerNorm(width_in)
        self.project = nn.Linear(width_in, width)
        self.places = nn.Parameter(torch.randn(rows, width) * 0.02)
        self.words = nn.Embedding(words, width)
        self.confidence = nn.Parameter(torch.zeros(width))
        self.no_photo = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.mixer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.output_norm = nn.LayerNorm(width)

    def likeliest_words(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and indices (B, hints) of the words for what the encoder sees."""
        with torch.no_grad():
            classes = self.classifier(features[:, 0]).softmax(1)
            best = torch.topk(classes @ self.class_words, self.hints, dim=1)
        return best.values, best.indices

    def hint_rows(self, probabilities: Tensor, words: Tensor) -> Tensor:
        rows: Tensor = self.words(words)
        return rows + probabilities.unsqueeze(2) * self.confidence

    def forward(self, features: Tensor) -> Tensor:
        """features float32 (B, rows, width_in) -> prefix float32 (B, rows + hints, width)."""
        grid = self.dropout(self.project(self.norm(features)) + self.places)
        hints = self.hint_rows(*self.likeliest_words(features))
        mixed = self.mixer(torch.cat([grid, self.dropout(hints)], 1))
        prefix: Tensor = self.output_norm(mixed)
        return prefix

    def of_words(self, probabilities: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix of a caption without a photo, from words in it.

        probabilities: float32 (B, hints); words: int64 (B, hints), -1 where there is none.
        Returns the prefix (B, 1 + hints, width) and its mask (B, 1 + hints), True where real.
        """
        hints = self.hint_rows(probabilities, words.clamp(min=0))
        rows = torch.cat([self.no_photo.expand(len(words), 1, -1), hints], 1)
        mask = torch.cat([torch.ones_like(words[:, :1], dtype=torch.bool), words >= 0], 1)
        mixed = self.mixer(self.dropout(rows), src_key_padding_mask=~mask)
        return self.output_norm(mixed), mask
