"""Vocabularies of whole words, of one language or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from capsmith.bundle import TextRules
from capsmith.errors import ConfigError

PAD, START, STOP, UNKNOWN = "<pad>", "<start>", "<stop>", "<unk>"

_LETTER = r"(?!\p{Han})[\p{L}\p{M}\p{N}]"
_ELISION = r"(?i:[cdjlmnstç]|\p{L}*qu)'(?=\p{L})"
"""French: what loses its vowel before another (l'homme, jusqu'ici)."""
_WORD = rf"(?:{_LETTER})+(?:['-](?:{_LETTER})+)*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Captions of one language: of photos, and without one."""

    captions: Sequence[str]
    texts: Sequence[str] = ()


def train_words(
    lines: Mapping[str, Lines],
    text: Mapping[str, TextRules],
    *,
    least_seen: int,
    least_seen_in_text: int = 0,
    keeps_commas: bool = False,
) -> tokenizers.Tokenizer:
    """A tokenizer of words, the first language's before the others', most frequent first.

    A word has a token where at least `least_seen` captions of photos in a language have it, or,
    where that is not 0, `least_seen_in_text` captions and texts together; others are one token,
    which is never written. Chinese characters are words each. Punctuation is left out, but commas
    where `keeps_commas`. text: the rules of each language, which say whether its words keep their
    case. Raises `ConfigError` where no word is left.
    """
    normalizer = normalizers.Replace("\u2019", "'")
    splitter = pre_tokenizers.Split(
        tokenizers.Regex(_pattern(lines, keeps_commas=keeps_commas)), "removed", invert=True
    )
    least = least_seen_in_text or float("inf")
    words: dict[str, None] = {}
    for language, own in lines.items():
        counter = _Counter(normalizer, splitter, text[language])
        seen = counter.count(own.captions)
        anywhere = seen + counter.count(own.texts)
        kept = [w for w, times in anywhere.items() if seen[w] >= least_seen or times >= least]
        words |= dict.fromkeys(sorted(kept, key=lambda word: (-anywhere[word], word)))
    if not words:
        raise ConfigError(f"no word is in {least_seen} captions; lower tokenizer.least_seen")
    special = [PAD, START, STOP, UNKNOWN]
    ids = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.Fuse()  # of languages whose words have nothing between them
    tokenizer.add_special_tokens(special)
    return tokenizer


def _pattern(languages: Iterable[str], *, keeps_commas: bool) -> str:
    forms = [_ELISION] if "fr" in languages else []
    forms += [r"\p{Han}", _WORD]
    if keeps_commas:
        forms.append("[,\N{FULLWIDTH COMMA}]")
    return "|".join(forms)


@dataclass(frozen=True, slots=True)
class _Counter:
    """Counts in how many lines each word is, in the case in which it is learned."""

    normalizer: normalizers.Normalizer
    splitter: pre_tokenizers.PreTokenizer
    text: TextRules

    def count(self, lines: Iterable[str]) -> Counter[str]:
        seen: Counter[str] = Counter()
        begins: Counter[str] = Counter()
        for line in lines:
            found = self._words(line)
            seen.update(set(found[1:]) if self._keeps_case else set(found))
            begins.update(found[:1] if self._keeps_case else ())
        # A first word is another one's capitalised form where that is in the midst of a line.
        for word, times in begins.items():
            seen[word.lower() if word.lower() in seen else word] += times
        return seen

    @property
    def _keeps_case(self) -> bool:
        return not self.text.lowercase_prompt and bool(self.text.join)

    def _words(self, line: str) -> list[str]:
        line = line.lower() if self.text.lowercase_prompt else line
        return [w for w, _ in self.splitter.pre_tokenize_str(self.normalizer.normalize_str(line))]
