"""A whole captioner for training: encoder, mapper and language model as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.errors import ConfigError
from capsmith.models.language_models import CrossAttentionDecoder, LanguageModel
from capsmith.models.mappers import Mapper
from capsmith.models.padding import ordered, real_first

IGNORED = -100
"""Label of a position that is not trained on."""


class CaptionModel(nn.Module):
    """Trains a mapper and any `LanguageModel` on captions; the encoder may be left out.

    encoder: pixels float32 (B, 3, H, W) to features (B, k, d); None where features are given.
    start_tokens: read before every caption and never predicted; may be empty where the prefix is
    read as input vectors. language_tokens: the one that follows them, in a captioner of several
    languages. detail_tokens: after these, in one that can be asked for short, normal and long
    captions. end_token: predicted after every caption.

    Parts of which nothing trains (see `policies`) stay in evaluation mode while the rest trains:
    no dropout, no running statistics.
    """

    def __init__(
        self,
        mapper: Mapper,
        language_model: nn.Module,
        *,
        start_tokens: Sequence[int],
        end_token: int,
        language_tokens: Mapping[str, int] | None = None,
        detail_tokens: Mapping[str, int] | None = None,
        encoder: nn.Module | None = None,
    ):
        super().__init__()
        self.encoder, self.mapper, self.language_model = encoder, mapper, language_model
        self.start_tokens, self.end_token = tuple(start_tokens), end_token
        self.language_tokens = dict(language_tokens or {})
        self.detail_tokens = dict(detail_tokens or {})
        if mapper.config.width != self.reader.width:
            raise ConfigError(
                f"the mapper's prefix is {mapper.config.width} wide, the language model reads"
                f" {self.reader.width}; make them equal"
            )
        wrong = [
            token
            for token in (
                *self.start_tokens,
                *self.language_tokens.values(),
                *self.detail_tokens.values(),
                end_token,
            )
            if not 0 <= token < self.reader.vocab_size
        ]
        if wrong:
            raise ConfigError(
                f"token {wrong[0]} is outside the vocabulary of {self.reader.vocab_size}"
            )

    @property
    def reader(self) -> LanguageModel:
        """The language model as what it can do."""
        return cast(LanguageModel, self.language_model)

    def train(self, mode: bool = True) -> Self:
        """As in `nn.Module`, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for part in self.children():
            for module in part.modules():
                parameters = list(module.parameters())
                if parameters and not any(p.requires_grad for p in parameters):
                    module.eval()
        return self

    def prompt(self, language: str, detail: str = "normal") -> tuple[int, ...]:
        """The tokens that are read before a caption in a language, and never predicted."""
        if self.language_tokens and language not in self.language_tokens:
            raise ConfigError(
                f'no token for language "{language}"; there are {", ".join(self.language_tokens)}'
            )
        spoken = (self.language_tokens[language],) if self.language_tokens else ()
        asked = (self.detail_tokens[detail],) if self.detail_tokens else ()
        return (*self.start_tokens, *spoken, *asked)

    @property
    def prompt_length(self) -> int:
        """How many tokens are read before a caption."""
        return len(self.start_tokens) + bool(self.language_tokens) + bool(self.detail_tokens)

    def tensors(
        self,
        captions: Sequence[Sequence[int]],
        languages: Sequence[str] | None = None,
        details: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Captions as tokens int64 (N, T), start and end tokens added, and what of them is real.

        languages: one a caption, needed in a captioner of several; details: likewise, how long the
        captions are. The mask is bool (N, T), False
        on the padding to the right. Padding is told by the mask alone: every token of the
        vocabulary, the end token too, may be a word of a caption.
        """
        rows = [
            [*self.prompt(language, detail), *caption, self.end_token]
            for caption, language, detail in zip(
                captions,
                languages or [""] * len(captions),
                details or ["normal"] * len(captions),
                strict=True,
            )
        ]
        longest = max(map(len, rows))
        padded = [row + [self.end_token] * (longest - len(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in rows])
        return torch.tensor(padded), torch.arange(longest) < lengths[:, None]

    def features(self, pixels: Tensor) -> Tensor:
        """Features (B, k, d) of pixels float32 (B, 3, H, W)."""
        if self.encoder is None:
            raise ConfigError("this captioner has no encoder; give it features")
        features: Tensor = self.encoder(pixels)
        return features

    def forward(
        self, features: Tensor, tokens: Tensor, mask: Tensor, owner: Tensor | None = None
    ) -> Tensor:
        """Logits (N, T, vocab_size): at each token, of what follows it.

        features: float32 (B, k, d); tokens: int64 (N, T); mask: bool (N, T), True where real,
        padding left, right or between; owner: int64 (N,), the photo of each caption, by default
        one caption a photo. Logits at padding mean nothing.
        """
        order, back = real_first(mask)
        hidden = self._hidden(self.mapper(features), ordered(tokens, order), owner)
        logits = self.reader.head(hidden[:, -tokens.shape[1] :])
        return ordered(logits, back)

    def loss(
        self,
        features: Tensor,
        tokens: Tensor,
        mask: Tensor,
        owner: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Mean cross entropy of every real token but the start tokens; the end token counts.

        Arguments as in `forward`. Logits are computed where there is a label, nowhere else.
        """
        return self.prefix_loss(
            self.mapper(features), tokens, mask, owner, label_smoothing=label_smoothing
        )

    def prefix_loss(
        self,
        prefix: Tensor,
        tokens: Tensor,
        mask: Tensor,
        owner: Tensor | None = None,
        *,
        prefix_mask: Tensor | None = None,
        among: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """As `loss`, of what the mapper makes of the features.

        prefix: float32 (B, P, width); prefix_mask: bool (B, P), True where a row is real. among:
        int64 (n,), tokens that are told apart, the captions' own among them; by default all of
        them, and only a `CrossAttentionDecoder` can be asked for some.
        """
        order, _ = real_first(mask)
        tokens, mask = ordered(tokens, order), ordered(mask, order)
        hidden = self._hidden(prefix, tokens, owner, prefix_mask)
        labels = self.labels(tokens, mask, hidden.shape[1])
        is_trained = labels[:, 1:] != IGNORED
        read, told = hidden[:, :-1][is_trained], labels[:, 1:][is_trained]
        logits, told = self.told_apart(read, told, among)
        return F.cross_entropy(logits.float(), told, label_smoothing=label_smoothing)

    def told_apart(
        self, hidden: Tensor, tokens: Tensor, among: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, n) of the tokens that a word is told from, and which of them it is, (N,).

        hidden: (N, width); tokens: int64 (N,); among: as in `prefix_loss`.
        """
        if among is None:
            return self.reader.head(hidden), tokens
        among = among.to(tokens.device)
        logits = cast(CrossAttentionDecoder, self.language_model).head_of(hidden, among)
        place = tokens.new_full((self.reader.vocab_size,), IGNORED)
        place[among] = torch.arange(len(among), device=tokens.device)
        return logits, place[tokens]

    def labels(self, tokens: Tensor, mask: Tensor, positions: int) -> Tensor:
        """What each of a row's positions holds, int64 (N, positions), `IGNORED` where not trained.

        tokens: int64 (N, T), padded on the right; the positions before the last T are the prefix's.
        """
        words = tokens.masked_fill(~mask, IGNORED)
        words[:, : self.prompt_length] = IGNORED  # `words` is a copy: tokens stay as they are
        return F.pad(words, (positions - tokens.shape[1], 0), value=IGNORED)

    def _hidden(
        self,
        prefix: Tensor,
        tokens: Tensor,
        owner: Tensor | None,
        prefix_mask: Tensor | None = None,
    ) -> Tensor:
        if owner is None:
            owner = torch.arange(len(tokens), device=tokens.device)
        hidden = self.reader.hidden(tokens, prefix, owner, prefix_mask)
        if hidden.shape[1] == tokens.shape[1] and not self.prompt_length:
            raise ConfigError(
                "this language model does not read its prefix as input vectors, so captions need a"
                " start token; name one"
            )
        return hidden
