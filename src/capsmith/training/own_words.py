"""In which words a language's captions are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from capsmith.models.caption_model import CaptionModel
from capsmith.models.language_models import CrossAttentionDecoder

_OTHERS = 512


@dataclass(frozen=True, slots=True)
class OwnWords:
    """The tokens of each language's captions, int64 (n,), for captioners of several languages.

    A caption's words are told from those of its language and from some others that are drawn at
    each step, which costs a part of telling them from all `size`. Without tokens it is all.
    """

    tokens: Mapping[str, Tensor]
    size: int
    others: int = _OTHERS

    def among(self, language: str) -> Tensor | None:
        """The tokens to tell a word of a language from; None for all."""
        if language not in self.tokens:
            return None
        drawn = torch.randint(self.size, (self.others,))
        told: Tensor = torch.unique(torch.cat([self.tokens[language], drawn]))
        return told


def keep_to_own_words(
    captioner: CaptionModel, captions: Iterable[tuple[str, Iterable[int]]]
) -> OwnWords:
    """Let decoding keep to the words of captions, each a language and token ids.

    None are kept for one language, or for a language model that scores all its tokens at once.
    """
    model, languages = captioner.language_model, captioner.language_tokens
    if not isinstance(model, CrossAttentionDecoder) or not languages:
        return OwnWords({}, captioner.reader.vocab_size)
    seen: dict[str, set[int]] = {language: {captioner.end_token} for language in languages}
    for language, ids in captions:
        seen[language].update(ids)
    model.keep_to({languages[name]: torch.tensor(sorted(ids)) for name, ids in seen.items()})
    rows = zip(languages, model.own_words[1:], strict=True)
    return OwnWords({name: row.nonzero()[:, 0] for name, row in rows}, model.vocab_size)
