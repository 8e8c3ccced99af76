"""A mapper of grid features and of words for what the encoder's classifier sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capsmith.models.mappers import Mapper, MapperConfig

HINTS = 5
"""Words that a mapper hints at, where its config says no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HintedGridConfig(MapperConfig):
    """rows: of the encoder's features, and `hints` more. classes: that the encoder tells apart;
    words: how many different words they are called by."""

    classes: int
    words: int
    hints: int = HINTS
    heads: int = 5
    dropout: float = 0.1


class HintedGridMapper(Mapper):
    """Grid features and the encoder's own class names as words, refined by one transformer layer.

    Features (B, rows, width_in) become `rows` prefix vectors; the `hints` likeliest words of the
    encoder's classes follow as `hints` more, so that the language model can name what few captioned
    photos show. The words are also given with captions that have no photo (`of_words`), which is
    how they get their meaning (entity hints as in ViECap, Fei et al. 2023, here from a classifier).

    class_words: float32 (classes, words), 1 where a class is called by a word; zeros until it is
    filled. A word's probability is the sum over its classes.
    """

    class_words: Tensor
    Config = HintedGridConfig
    training_only = ("no_photo",)

    def __init__(self, config: HintedGridConfig) -> None:
        super().__init__(config)
        width, width_in = config.width, config.input_width
        self.hints = config.hints
        self.names: tuple[str, ...] = ()  # the words; captioning does not need them
        self.register_buffer("class_words", torch.zeros(config.classes, config.words))
        self.classifier = nn.Linear(width_in, config.classes)
        self.norm = nn.LayerNorm(width_in)
        self.project = nn.Linear(width_in, width)
        self.places = nn.Parameter(torch.randn(config.rows - config.hints, width) * 0.02)
        self.words = nn.Embedding(config.words, width)
        self.confidence = nn.Parameter(torch.zeros(width))
        self.no_photo = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.mixer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, config.dropout, "gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
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

    def map(self, features: Tensor) -> Tensor:
        """See `Mapper`: first the grid's rows, then the hints'."""
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
