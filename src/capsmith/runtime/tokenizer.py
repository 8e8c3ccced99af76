"""Tokens to captions and prompts to tokens, as a bundle's `tokenizer.json` and text rules say."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tokenizers

from capsmith.bundle import TextRules
from capsmith.errors import BundleError

# Word-level vocabularies make words of punctuation and of the ends of "it's" and "isn't".
_SPACE_BEFORE = re.compile(r"\s+(?=[.,;:!?%)\]}…]|(?:'(?:s|re|ve|ll|d|m|t)|n't)\b)")
_SPACE_AFTER = re.compile(r"(?<=[(\[{$])\s+")
# At the end of a text: what may yet lose the space before it, or does not yet.
_UNSETTLED = re.compile(r"\s+(?:n|n?'\w*)?$")
_ENDS = (".", "!", "?", "…", "。", "！", "？")
_ELISION = re.compile(r"\w+'")
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A bundle's tokenizer. Safe to use from several threads.

    Raises `BundleError` where `path` is not a `tokenizer.json` that can be read.
    """

    def __init__(self, path: Path, text: TextRules) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # `tokenizers` raises bare Exception
            reason = " ".join(str(error).split())[:200]
            raise BundleError(
                f"{path}: is not a tokenizer.json ({reason}); download or export the bundle again"
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._rules = text
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {token for token, facts in added.items() if facts.special}

    def for_text(self, text: TextRules) -> Tokenizer:
        """The same tokenizer under other text rules, those of another language."""
        made = copy.copy(self)
        made._rules = text
        return made

    @property
    def vocab(self) -> Mapping[str, int]:
        """Token text to id, as the file spells them."""
        vocab: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return vocab

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt or a caption, without start and stop tokens."""
        text = as_learned(text, self._rules, lambda word: bool(self._tokenizer.token_to_id(word)))
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The caption that the tokens spell: spacing of punctuation, first letter, final period."""
        caption = _tidy(self._spell(ids)).strip()
        if self._rules.capitalise:
            caption = _capitalise(caption)
        if self._rules.final_period and caption and not caption.endswith(_ENDS):
            caption += self._rules.period
        return caption

    def without_final_period(self, caption: str) -> str:
        """The caption as the model would write it, where `decode` adds the period."""
        if not self._rules.final_period:
            return caption
        return caption.rstrip().removesuffix(self._rules.period)

    def tokens(self, ids: Sequence[int]) -> tuple[str, ...]:
        """One readable text a token, spaces kept; half a character is U+FFFD."""
        return tuple(self._spell([token]) for token in ids)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """What `stream` yields for these tokens; joined they are `decode(ids)`."""
        return tuple(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Text as soon as the tokens that come settle it; joined it is the caption.

        A piece is held back while a later token could still change it: half a character, or a
        space that punctuation would take away.
        """
        said, seen = "", list[int]()
        for token in ids:
            seen.append(token)
            settled = self._settled(seen)
            if len(settled) > len(said) and settled.startswith(said):
                yield settled[len(said) :]
                said = settled
        caption = self.decode(seen)
        if len(caption) > len(said):
            yield caption[len(said) :]

    def _settled(self, ids: Sequence[int]) -> str:
        """The part of the caption that no later token changes."""
        text = self._spell(ids).rstrip(_UNFINISHED)
        caption = _tidy(_UNSETTLED.sub("", text)).strip()
        return _capitalise(caption) if self._rules.capitalise else caption

    def _spell(self, ids: Sequence[int]) -> str:
        if self._rules.join:
            words = (
                self._tokenizer.id_to_token(token) for token in ids if token not in self._special
            )
            return _spaced((word for word in words if word), self._rules.join)
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def as_learned(text: str, rules: TextRules, is_known: Callable[[str], object]) -> str:
    """Text in the case in which a captioner learned its words.

    Of captions that keep their case the first word is read in lower case where that is a word too,
    because every caption begins with a capital.
    """
    if rules.lowercase_prompt:
        return text.lower()
    first, space, rest = text.partition(" ")
    if rules.capitalise and rules.join and is_known(first.lower()):
        return f"{first.lower()}{space}{rest}"
    return text


def _spaced(words: Iterable[str], join: str) -> str:
    """Words with `join` between them, but none after an elision (l'homme)."""
    text = "".join(word if _ELISION.fullmatch(word) else f"{word}{join}" for word in words)
    return text.removesuffix(join)


def _tidy(text: str) -> str:
    return _SPACE_AFTER.sub("", _SPACE_BEFORE.sub("", text))


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
