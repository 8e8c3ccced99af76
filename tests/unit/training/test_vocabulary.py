"""Tokens that captions are made of."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from capsmith.bundle import TextRules
from capsmith.errors import CheckpointError, ConfigError
from capsmith.training.config import TokenizerConfig
from capsmith.training.vocabulary import CaptionTokens, build_tokens
from capsmith.training.word_vocabulary import Lines

CAPTIONS = [
    "A dog's ball, on the T-shirt.",
    "a Dog runs",
    "two dogs run on the beach .",
    "a dog by the sea",
]
PLAIN = TextRules(lowercase_prompt=True, capitalise=True, final_period=True, join=" ")
WRITTEN = TextRules(lowercase_prompt=False, capitalise=False, final_period=False, join="")


def tokens(
    config: TokenizerConfig, *, text: TextRules = PLAIN, languages: tuple[str, ...] = ("en",)
) -> CaptionTokens:
    return build_tokens(config, {name: Lines(captions=CAPTIONS) for name in languages}, text)


def spelled(made: CaptionTokens, caption: str) -> list[str]:
    found = [made.tokenizer.id_to_token(token) for token in made.encode(caption)]
    return [str(token) for token in found]


def test_words_are_whole_lower_case_and_seen_often_enough() -> None:
    made = tokens(TokenizerConfig(kind="words", least_seen=2))
    ids = made.tokenizer.get_vocab()
    known = set(ids) - {"<pad>", "<start>", "<stop>", "<unk>"}
    assert known == {"a", "dog", "on", "the"}
    by_captions = ["a", "the", "dog", "on"]
    assert [ids[word] for word in by_captions] == [4, 5, 6, 7]
    assert spelled(made, "A DOG, on the roof.") == ["a", "dog", "on", "the", "<unk>"]
    every = tokens(TokenizerConfig(kind="words", least_seen=1))
    assert spelled(every, CAPTIONS[0]) == ["a", "dog's", "ball", "on", "the", "t-shirt"]
    assert spelled(every, "a dog\u2019s ball") == ["a", "dog's", "ball"]


def test_bytes_spell_whatever_there_is() -> None:
    made = tokens(TokenizerConfig(kind="bpe", vocab_size=300), text=WRITTEN)
    assert made.vocab_size <= 300
    for caption in (*CAPTIONS, "Überraschung: 犬 🐕"):
        assert made.tokenizer.decode(list(made.encode(caption))).strip() == caption


def test_a_period_that_is_written_anyway_is_not_learned() -> None:
    for kind in ("words", "bpe"):
        made = tokens(TokenizerConfig(kind=kind, least_seen=1, vocab_size=400))
        assert made.encode("a dog runs .") == made.encode("A dog runs")
        kept = tokens(TokenizerConfig(kind="bpe", vocab_size=400), text=WRITTEN)
        assert kept.encode("a dog runs .") != kept.encode("a dog runs")


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_special_tokens_are_never_written(kind: str) -> None:
    config = TokenizerConfig(kind=kind, least_seen=1, vocab_size=400)  # type: ignore[arg-type]
    made = tokens(config, languages=("de", "en"))
    ids = made.tokenizer.get_vocab()
    added = made.tokenizer.get_added_tokens_decoder()
    special = {token for token, facts in added.items() if facts.special}
    assert set(made.never) == special - {made.end}
    assert set(made.start) <= set(made.never)
    assert made.languages == {"de": ids["<de>"], "en": ids["<en>"]}
    assert set(made.languages.values()) <= set(made.never)
    assert made.tokenizer.decode([*made.start, made.end]) == ""


def test_one_language_needs_no_token() -> None:
    assert tokens(TokenizerConfig(kind="words", least_seen=1)).languages == {}


def test_what_cannot_be_had_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no word is in 9 captions; lower tokenizer\.least_seen"):
        tokens(TokenizerConfig(kind="words", least_seen=9))
    pretrained = TokenizerConfig(kind="pretrained", name="nobody/none")
    with pytest.raises(ConfigError, match="captions in de, en need tokens"):
        tokens(pretrained, languages=("de", "en"))
    with pytest.raises(CheckpointError, match="nobody/none"):
        build_tokens(pretrained, {"en": Lines(captions=CAPTIONS)}, PLAIN, allow_download=False)
