"""Losses beside that of the captions, which teach the encoder, or words that photos lack."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capsmith.data.rows import CaptionLine
from capsmith.errors import ConfigError
from capsmith.models.caption_model import CaptionModel
from capsmith.models.encoders import EfficientNetLite, published_efficientnet_lite
from capsmith.models.hinted_mapper import HintedGridMapper
from capsmith.training.assembly import Assembly
from capsmith.training.batches import Batch
from capsmith.training.examples import Bounds, Examples, detail_of
from capsmith.training.own_words import OwnWords
from capsmith.training.vocabulary import CaptionTokens

_RARE = -4.0
"""First bias of a word's logit: most words are in few captions."""


class WordTags(nn.Module):
    """Tells from the first row of the features which frequent words a photo's captions have.

    words: token ids; language: of the captions that count. The loss is a sum over words, a mean
    over photos.
    """

    def __init__(self, examples: Examples, words: Sequence[int], width: int, *, language: str):
        super().__init__()
        self.examples, self.language = examples, language
        self.place = {token: column for column, token in enumerate(words)}
        self.dropout = nn.Dropout(0.2)
        self.tell = nn.Linear(width, len(words))
        nn.init.constant_(self.tell.bias, _RARE)

    def forward(self, batch: Batch, features: Tensor) -> Tensor:
        """The loss of features float32 (B, k, width)."""
        told = self.tell(self.dropout(features[:, 0]))
        shares = self._shares(batch).to(told.device)
        loss = F.binary_cross_entropy_with_logits(told, shares, reduction="sum")
        return loss / len(features)

    def _shares(self, batch: Batch) -> Tensor:
        """Share of each photo's captions that have each word, float32 (B, words)."""
        shares = torch.zeros(len(batch.photos), len(self.place))
        for row, photo in enumerate(batch.photos):
            lines = (self.examples.lines[i] for i in self.examples.of_photo[photo])
            own = [line for line in lines if line.language == self.language]
            for line in own:
                for token in set(line.ids):
                    if token in self.place:
                        shares[row, self.place[token]] += 1 / len(own)
        return shares


class KeptClasses(nn.Module):
    """Stays with the classes that the published encoder sees, while the encoder trains.

    Its copy of the encoder does not train, and is measured on a third of a batch.
    """

    def __init__(self, published: EfficientNetLite, depth: int):
        super().__init__()
        _, tail = published.split(depth)
        self.tail, self.classifier = tail, published.classifier
        self.requires_grad_(False)

    def forward(self, batch: Batch, features: Tensor) -> Tensor:
        """KL divergence of the classes of features float32 (B, k, width)."""
        few = slice(0, max(1, len(features) // 3))
        with torch.no_grad():
            target = self.classifier(self.tail(batch.inputs[few])[:, 0]).softmax(1)
        classes = self.classifier(features[few, 0]).log_softmax(1)
        return F.kl_div(classes, target, reduction="batchmean")


@dataclass(frozen=True, slots=True)
class Text:
    """A caption without a photo as token ids; detail: as of `Line`."""

    ids: tuple[int, ...]
    language: str
    detail: str = "normal"


def tokenise_texts(
    texts: Sequence[CaptionLine], tokens: CaptionTokens, *, max_tokens: int, bounds: Bounds
) -> list[Text]:
    """Captions without photos; those over `max_tokens` (0: none) are left out."""
    made = []
    for line in texts:
        ids = tokens.encode(line.text, line.language)
        if not 0 < max_tokens < len(ids):
            detail = detail_of(len(ids), line.language, bounds)
            made.append(Text(ids, line.language, detail))
    return made


class TextsWithHints(nn.Module):
    """Captions without photos, after hints as a classifier would give them: right ones and wrong.

    hints: token -> number of a class word, plurals too. words: those that a caption's words are
    told from. Every language is drawn as often as any other.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        hints: dict[int, int],
        words: OwnWords,
        *,
        texts_a_step: int,
        label_smoothing: float,
    ):
        super().__init__()
        if not texts:
            raise ConfigError(
                "beside.texts has a weight, and the data has no captions without photo"
            )
        self.texts: dict[str, list[Text]] = {}
        for text in texts:
            self.texts.setdefault(text.language, []).append(text)
        self.hints, self.words = hints, words
        self.texts_a_step, self.label_smoothing = texts_a_step, label_smoothing

    def forward(self, model: CaptionModel) -> Tensor:
        """The loss of some captions; which ones follows from torch's seed."""
        rng = random.Random(torch.initial_seed())
        drawn = sorted(rng.choices(list(self.texts), k=self.texts_a_step))
        texts = [rng.choice(self.texts[language]) for language in drawn]
        lines = [text.ids for text in texts]
        mapper = model.mapper
        assert isinstance(mapper, HintedGridMapper)
        probabilities, hints = self._draw_hints(lines, mapper.hints, rng)
        device = mapper.no_photo.device
        prefix, prefix_mask = mapper.of_words(probabilities.to(device), hints.to(device))
        tokens, mask = model.tensors(lines, drawn, [text.detail for text in texts])
        total, count = prefix.new_zeros(()), 0
        for language in dict.fromkeys(drawn):
            rows = [row for row, spoken in enumerate(drawn) if spoken == language]
            loss = model.prefix_loss(
                prefix[rows], tokens[rows].to(device), mask[rows].to(device),
                prefix_mask=prefix_mask[rows], among=self.words.among(language),
                label_smoothing=self.label_smoothing,
            )  # fmt: skip
            size = int(mask[rows].sum()) - len(rows) * model.prompt_length
            total, count = total + loss * size, count + size
        return total / count

    def _draw_hints(
        self, lines: Sequence[Sequence[int]], size: int, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        """Probabilities float32 and words int64 (N, size), -1 where there is none."""
        probabilities = torch.zeros(len(lines), size)
        hints = torch.full((len(lines), size), -1)
        total = max(self.hints.values()) + 1
        for row, line in enumerate(lines):
            named = dict.fromkeys(self.hints[token] for token in line if token in self.hints)
            right = [(word, rng.uniform(0.1, 1.0)) for word in named if rng.random() < 0.8]
            wrong = [(rng.randrange(total), rng.uniform(0, 0.3)) for _ in range(2)]
            for place, (word, probability) in enumerate((right + wrong)[:size]):
                hints[row, place], probabilities[row, place] = word, probability
        return probabilities, hints


def hint_tokens(words: Sequence[str], vocabulary: dict[str, int]) -> dict[int, int]:
    """Token -> number of the class word that it is, or that it is the plural of."""
    tokens = {vocabulary[word]: number for number, word in enumerate(words)}
    for number, word in enumerate(words):
        for plural in (f"{word}s", f"{word}es"):
            if plural in vocabulary:
                tokens.setdefault(vocabulary[plural], number)
    return tokens


def losses_beside(
    assembly: Assembly, examples: Examples, texts: Sequence[Text], words: OwnWords
) -> dict[str, tuple[float, nn.Module]]:
    """The losses beside the captions that a recipe asks for: name -> (weight, loss)."""
    recipe, tokens = assembly.recipe, assembly.tokens
    wanted, training = recipe.beside, recipe.training
    losses: dict[str, tuple[float, nn.Module]] = {}
    if wanted.tags:
        specials = {*tokens.start, tokens.end, *tokens.never, *tokens.languages.values()}
        every = [token for token in range(tokens.vocab_size) if token not in specials]
        frequent, language = every[: wanted.tag_words], tokens.spoken[0]
        tags = WordTags(examples, frequent, assembly.encoder.width, language=language)
        losses["tags"] = (wanted.tags, tags)
    if wanted.classes:
        published = published_efficientnet_lite(recipe.encoder.name, recipe.encoder.weights)
        losses["classes"] = (wanted.classes, KeptClasses(published, recipe.features.depth))
    if wanted.texts:
        mapper = assembly.model.mapper
        assert isinstance(mapper, HintedGridMapper)
        hints = hint_tokens(mapper.names, tokens.tokenizer.get_vocab())
        losses["texts"] = (
            wanted.texts,
            TextsWithHints(
                texts, hints, words, texts_a_step=wanted.texts_a_step,
                label_smoothing=training.label_smoothing,
            ),
        )  # fmt: skip
    return losses
