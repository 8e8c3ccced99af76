"""Texts to tokens of a bundle's text tower, as its `text_tokenizer.json` says."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from capsmith.errors import BundleError, ConfigError

_LETTERS_A_TOKEN = 64
"""More than any token spells: what is cut away before tokens are made would be cut after it."""


class TextTokenizer:
    """A text tower's tokenizer. Safe to use from several threads.

    Raises `BundleError` where `path` is not a `tokenizer.json` that can be read.
    """

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
            self._tokenizer.enable_truncation(max_tokens)
        except Exception as error:  # `tokenizers` raises bare Exception
            reason = " ".join(str(error).split())[:200]
            raise BundleError(
                f"{path}: is not a tokenizer.json ({reason}); download or export the bundle again"
            ) from None
        self._tokenizer.no_padding()
        self._path = path
        self._max_letters = max_tokens * _LETTERS_A_TOKEN

    def encode(self, text: str) -> list[int]:
        """Token ids of any text, the empty one too, cut to the tower's length.

        White space of any kind and length is one space; half a surrogate pair is "?". Raises
        `ConfigError` for what is no text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"a text is of type {type(text).__name__}; give str")
        # Words enough for every token: a book is not split to keep its first sentence.
        words = text[: self._max_letters * 4].split()
        plain = " ".join(words)[: self._max_letters].encode("utf-8", "replace").decode()
        ids: list[int] = self._tokenizer.encode(plain).ids
        if not ids:
            raise BundleError(f"{self._path}: makes no token of a text; export the bundle again")
        return ids
