"""The tokens that a recipe's captions are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from capsmith.bundle import TextRules
from capsmith.errors import CheckpointError, ConfigError
from capsmith.models import bpe
from capsmith.models.pretrained_language_models import load_tokenizer
from capsmith.training.config import TokenizerConfig

PAD, UNKNOWN = "<pad>", "<unk>"
_WORD = r"[a-z0-9]+(?:['-][a-z0-9]+)*"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTokens:
    """A tokenizer and which of its tokens start, end and never enter a caption.

    spoken: the languages of the captions, the first being the default. languages: the token that
    says which one a caption is in, where there are several.
    """

    tokenizer: tokenizers.Tokenizer
    text: TextRules
    start: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    spoken: tuple[str, ...]
    languages: Mapping[str, int]

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        size: int = self.tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def words(self) -> list[str]:
        """The text of every token, by id."""
        vocabulary = self.tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def encode(self, caption: str) -> tuple[int, ...]:
        """Token ids of a caption, without start and end: as a prompt is encoded by the runtime."""
        if self.text.lowercase_prompt:
            caption = caption.lower()
        if self.text.final_period:  # it is written after every caption, so that none learns it
            caption = caption.rstrip().removesuffix(".").rstrip()
        return tuple(self.tokenizer.encode(caption, add_special_tokens=False).ids)


def build_tokens(
    config: TokenizerConfig,
    text: TextRules,
    captions: Sequence[str],
    texts: Sequence[str],
    languages: Sequence[str],
    *,
    allow_download: bool = True,
) -> CaptionTokens:
    """The tokens of a recipe; a tokenizer of one's own learns from the captions of photos and from
    texts without a photo.

    allow_download: ask the hub for a pretrained one. Raises `ConfigError` where the tokenizer
    cannot do what the recipe asks, `CheckpointError` where a pretrained one cannot be had.
    """
    several = tuple(languages) if len(languages) > 1 else ()
    if config.kind == "pretrained":
        if several:
            raise ConfigError(
                f"captions in {', '.join(several)} need tokens that a pretrained tokenizer does not"
                " have; use tokenizer.kind: bpe, or data of one language"
            )
        tokenizer = load_tokenizer(config.name, allow_download=allow_download)
        if tuple(languages) == ("zh",) and isinstance(tokenizer.decoder, decoders.WordPiece):
            tokenizer.decoder = _joined()
        return _pretrained(config, text, tokenizer, tuple(languages))
    if config.kind == "words":
        start, end = "<start>", "<stop>"
        tokenizer = train_words(
            captions,
            texts,
            least_seen=config.least_seen,
            least_seen_in_text=config.least_seen_in_text,
        )
    else:
        start, end = bpe.START, bpe.END
        tokenizer = bpe.train_bpe(
            [*captions, *texts], vocab_size=config.vocab_size, lowercase=text.lowercase_prompt
        )
    tokenizer.add_special_tokens([f"<{language}>" for language in several])
    ids = tokenizer.get_vocab()
    return CaptionTokens(
        tokenizer=tokenizer,
        text=text,
        start=(ids[start],),
        end=ids[end],
        never=_never(tokenizer, ids[end]),
        spoken=tuple(languages),
        languages={language: ids[f"<{language}>"] for language in several},
    )


def train_words(
    captions: Iterable[str],
    texts: Iterable[str] = (),
    *,
    least_seen: int,
    least_seen_in_text: int = 0,
) -> tokenizers.Tokenizer:
    """A tokenizer of lower-case words, punctuation left out, most frequent first.

    A word has a token where at least `least_seen` captions of photos have it, or, where that is
    not 0, `least_seen_in_text` captions and texts together; others are one token, which is never
    written. Raises `ConfigError` where no word is left.
    """
    normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("\u2019", "'")])
    splitter = pre_tokenizers.Split(tokenizers.Regex(_WORD), "removed", invert=True)

    def count(lines: Iterable[str]) -> Counter[str]:
        seen: Counter[str] = Counter()
        for line in lines:
            found = splitter.pre_tokenize_str(normalizer.normalize_str(line))
            seen.update({word for word, _ in found})
        return seen

    seen = count(captions)
    anywhere = seen + count(texts)
    least = least_seen_in_text or float("inf")
    kept = (word for word, times in anywhere.items() if seen[word] >= least_seen or times >= least)
    words = sorted(kept, key=lambda word: (-anywhere[word], word))
    if not words:
        raise ConfigError(f"no word is in {least_seen} captions; lower tokenizer.least_seen")
    special = [PAD, "<start>", "<stop>", UNKNOWN]
    ids = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(special)
    return tokenizer


_ENDS = ("<|endoftext|>", "[SEP]", "</s>", "<|im_end|>", "<|end_of_text|>")


def _joined() -> decoders.Decoder:
    """Pieces of words without a space between them, as Chinese is written."""
    return decoders.Sequence([decoders.Replace("##", ""), decoders.Fuse()])


def _pretrained(
    config: TokenizerConfig,
    text: TextRules,
    tokenizer: tokenizers.Tokenizer,
    spoken: tuple[str, ...],
) -> CaptionTokens:
    ends = [config.end] if config.end else _ENDS
    ids = tokenizer.get_vocab()
    end = next((name for name in ends if name in ids), None)
    if end is None:
        raise CheckpointError(
            f"{config.name}: its tokenizer has none of {', '.join(ends)}; name the token that ends"
            " a caption as tokenizer.end"
        )
    return CaptionTokens(
        tokenizer=tokenizer,
        text=text,
        start=(),
        end=ids[end],
        never=_never(tokenizer, ids[end]),
        spoken=spoken,
        languages={},
    )


def _never(tokenizer: tokenizers.Tokenizer, end: int) -> tuple[int, ...]:
    """The special tokens but for the end: a caption never has them."""
    added = tokenizer.get_added_tokens_decoder()
    return tuple(sorted(token for token, facts in added.items() if facts.special and token != end))
