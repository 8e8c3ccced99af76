"""The tokens that a recipe's captions are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import tokenizers
from tokenizers import decoders

from capsmith.bundle import TextRules
from capsmith.description import DETAILS
from capsmith.errors import CheckpointError, ConfigError
from capsmith.models import bpe
from capsmith.models.pretrained_language_models import load_tokenizer
from capsmith.runtime.tokenizer import as_learned
from capsmith.training.config import TokenizerConfig
from capsmith.training.word_vocabulary import START, STOP, Lines, train_words


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTokens:
    """A tokenizer and which of its tokens start, end and never enter a caption.

    spoken: the languages of the captions, the first being the default. languages: the token that
    says which one a caption is in, where there are several. details: the token that says how long
    a caption is, short, normal or long, where captioners can be asked. language_text: text rules of
    the languages that do not follow `text`.
    """

    tokenizer: tokenizers.Tokenizer
    text: TextRules
    start: tuple[int, ...]
    end: int
    never: tuple[int, ...]
    spoken: tuple[str, ...]
    languages: Mapping[str, int]
    details: Mapping[str, int] = field(default_factory=dict)
    language_text: Mapping[str, TextRules] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        size: int = self.tokenizer.get_vocab_size(with_added_tokens=True)
        return size

    def words(self) -> list[str]:
        """The text of every token, by id."""
        vocabulary = self.tokenizer.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def encode(self, caption: str, language: str = "") -> tuple[int, ...]:
        """Token ids of a caption, without start and end: as a prompt is encoded by the runtime."""
        rules = self.language_text.get(language, self.text)
        caption = as_learned(caption, rules, self.tokenizer.token_to_id)
        if rules.final_period:  # it is written after every caption, so that none learns it
            caption = caption.rstrip().removesuffix(rules.period).rstrip()
        return tuple(self.tokenizer.encode(caption, add_special_tokens=False).ids)


def build_tokens(
    config: TokenizerConfig,
    lines: Mapping[str, Lines],
    text: TextRules,
    language_text: Mapping[str, TextRules] | None = None,
    *,
    allow_download: bool = True,
) -> CaptionTokens:
    """The tokens of a recipe; a tokenizer of one's own learns from the captions of photos and from
    texts without a photo.

    lines: captions by language, the first being the default. allow_download: ask the hub for a
    pretrained one. Raises `ConfigError` where the tokenizer cannot do what the recipe asks,
    `CheckpointError` where a pretrained one cannot be had.
    """
    own_rules = dict(language_text or {})
    several = tuple(lines) if len(lines) > 1 else ()
    details = DETAILS if config.details else ()
    if config.kind == "pretrained":
        if several or details:
            what = f"captions in {', '.join(several)}" if several else "tokenizer.details"
            raise ConfigError(
                f"{what} need tokens that a pretrained tokenizer does not have; use"
                " tokenizer.kind: bpe, or data of one language without details"
            )
        return _pretrained(config, text, tuple(lines), allow_download=allow_download)
    if config.kind == "words":
        start, end = START, STOP
        tokenizer = train_words(
            lines,
            {language: own_rules.get(language, text) for language in lines},
            least_seen=config.least_seen,
            least_seen_in_text=config.least_seen_in_text,
            keeps_commas=config.commas,
        )
    else:
        start, end = bpe.START, bpe.END
        every = [line for own in lines.values() for line in (*own.captions, *own.texts)]
        tokenizer = bpe.train_bpe(
            every, vocab_size=config.vocab_size, lowercase=text.lowercase_prompt
        )
    tokenizer.add_special_tokens([f"<{name}>" for name in (*several, *details)])
    ids = tokenizer.get_vocab()
    return CaptionTokens(
        tokenizer=tokenizer,
        text=text,
        start=(ids[start],),
        end=ids[end],
        never=_never(tokenizer, ids[end]),
        spoken=tuple(lines),
        languages={language: ids[f"<{language}>"] for language in several},
        details={detail: ids[f"<{detail}>"] for detail in details},
        language_text=own_rules,
    )


_ENDS = ("<|endoftext|>", "[SEP]", "</s>", "<|im_end|>", "<|end_of_text|>")


def _joined() -> decoders.Decoder:
    """Pieces of words without a space between them, as Chinese is written."""
    return decoders.Sequence([decoders.Replace("##", ""), decoders.Fuse()])


def _pretrained(
    config: TokenizerConfig, text: TextRules, spoken: tuple[str, ...], *, allow_download: bool
) -> CaptionTokens:
    tokenizer = load_tokenizer(config.name, allow_download=allow_download)
    if spoken == ("zh",) and isinstance(tokenizer.decoder, decoders.WordPiece):
        tokenizer.decoder = _joined()
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
