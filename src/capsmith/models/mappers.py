"""Mappers: from an encoder's features to the prefix of a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
