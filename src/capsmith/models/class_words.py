"""Which words name the classes of an encoder's classifier, in a captioner's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from capsmith.errors import ConfigError

_COMMON = 4000
"""A lemma counts as the word for a class when it is one of so many most frequent tokens."""


@dataclass(frozen=True, slots=True)
class ClassWords:
    """The words, sorted, and float32 (classes, words), 1 where a class is called by a word."""

    words: tuple[str, ...]
    table: Tensor


def read_class_words(path: Path, vocabulary: Mapping[str, int]) -> ClassWords:
    """The words of a file's classes that a captioner knows.

    The file is a JSON list, one entry a class: its word, or a list of lemmas, of which the most
    frequent is its word. vocabulary: token -> id, frequent ones first. Raises `ConfigError`.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a JSON list") from None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: must be a JSON list with an entry a class")
    chosen = [_word(entry, vocabulary) for entry in entries]
    words = tuple(sorted({word for word in chosen if word is not None}))
    if not words:
        raise ConfigError(f"{path}: the captioner's vocabulary has none of its words")
    table = torch.zeros(len(chosen), len(words))
    for row, word in enumerate(chosen):
        if word is not None:
            table[row, words.index(word)] = 1.0
    return ClassWords(words, table)


def _word(entry: object, vocabulary: Mapping[str, int]) -> str | None:
    if isinstance(entry, str):
        return entry if entry in vocabulary else None
    lemmas = entry if isinstance(entry, list) else []
    common = [lemma for lemma in lemmas if vocabulary.get(lemma, _COMMON) < _COMMON]
    return min(common, key=vocabulary.__getitem__, default=None)
