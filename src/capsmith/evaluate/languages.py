"""How captions of each language become tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from capsmith.evaluate.tokenize import ptb_lines

_APOSTROPHES: Final = re.compile("[\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}]")
_CHARACTER: Final = re.compile(r"[^\W_]")
_WORD: Final = re.compile(r"\d+(?:[.,:]\d+)+|[^\W_]+(?:[-'][^\W_]+)*")
# Before a vowel; "aujourd'hui" and "quelqu'un" are words of their own.
_ELIDED: Final = re.compile(r"((?:jusqu|lorsqu|puisqu|quoiqu|qu|[cdjlmnst])')(?=\w)")


def tokenised(captions: Sequence[str], language: str) -> list[str]:
    """Each caption's tokens, joined by spaces, by the rule of its language (`rule_of`).

    "en": Penn Treebank, all captions as lines of one text, see `tokenize.ptb_lines`.
    "zh": characters: each letter and digit, Chinese or not, is a token.
    Any other: words: runs of letters and digits, with the apostrophes and hyphens between them
    (German "T-Shirt" is one word); a number keeps its points and commas. In French an elided word
    stands alone: "l'homme d'affaires" is "l' homme d' affaires".

    The last two take composed characters (NFC) in lower case, and drop all punctuation. A language
    has its two-letter code; what follows a hyphen ("de-AT") makes no difference.
    """
    match _base(language):
        case "en":
            return ptb_lines(captions)
        case "zh":
            return [" ".join(_CHARACTER.findall(_normal(text))) for text in captions]
        case "fr":
            return [" ".join(_french(_normal(text))) for text in captions]
        case _:
            return [" ".join(_WORD.findall(_normal(text))) for text in captions]


def rule_of(language: str) -> str:
    """The name of the language's rule, which goes beside every score."""
    names = {"en": "Penn Treebank", "zh": "characters", "fr": "words, elisions apart"}
    return names.get(_base(language), "words")


def is_english(language: str) -> bool:
    """Whether a language's code is English's."""
    return _base(language) == "en"


def is_same(first: str, second: str) -> bool:
    """Whether two codes are of one language, "de-AT" and "de" for instance."""
    return _base(first) == _base(second)


def _base(language: str) -> str:
    return language.lower().replace("_", "-").partition("-")[0]


def _normal(text: str) -> str:
    return _APOSTROPHES.sub("'", unicodedata.normalize("NFC", text).lower())


def _french(text: str) -> list[str]:
    return [part for word in _WORD.findall(text) for part in _without_elision(word)]


def _without_elision(word: str) -> list[str]:
    match = _ELIDED.match(word)
    return [match[1], word[match.end() :]] if match else [word]
