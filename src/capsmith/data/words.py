"""Captions as words, alike for all languages and spellings: for comparing, not for scoring."""

from __future__ import annotations

import re
from typing import Final

# A Chinese or Japanese character is as much as a word.
_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a caption, case folded, without punctuation."""
    return _WORD.findall(text.casefold())
