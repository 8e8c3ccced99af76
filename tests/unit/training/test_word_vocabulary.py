"""Vocabularies of words in several languages, and what the runtime makes of their tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from capsmith.bundle import TextRules
from capsmith.errors import ConfigError
from capsmith.runtime.tokenizer import Tokenizer
from capsmith.training.config import TokenizerConfig
from capsmith.training.vocabulary import CaptionTokens, build_tokens
from capsmith.training.word_vocabulary import Lines

ENGLISH = TextRules(lowercase_prompt=True, capitalise=True, final_period=True, join=" ")
GERMAN = TextRules(lowercase_prompt=False, capitalise=True, final_period=True, join=" ")
CHINESE = TextRules(
    lowercase_prompt=False, capitalise=False, final_period=True, join="", period="。"
)
LINES = {
    "en": Lines(captions=["A man's dog, in a hall.", "The dog runs in the sea."]),
    "de": Lines(
        captions=[
            "Ein junger Mann, der lacht.",
            "Der Junge sitzt neben einer jungen Frau.",
            "Hunde rennen, und ein Hund sitzt.",
            "Ein junger Hund und der Mann.",
        ]
    ),
    "fr": Lines(captions=["Un homme s'assied à l'ombre, jusqu\u2019au soir.", "L'homme dort."]),
    "cs": Lines(captions=["Žluťoučký kůň, který běží."]),
    "zh": Lines(captions=["一个男人，在海边跑步。"]),
}


@pytest.fixture(scope="module")
def tokens() -> CaptionTokens:
    config = TokenizerConfig(kind="words", least_seen=1, commas=True)
    return build_tokens(config, LINES, ENGLISH, {"de": GERMAN, "zh": CHINESE})


def words(tokens: CaptionTokens, text: str, language: str) -> list[str | None]:
    return [tokens.tokenizer.id_to_token(token) for token in tokens.encode(text, language)]


def test_german_keeps_its_case_but_for_a_first_word(tokens: CaptionTokens) -> None:
    vocabulary = tokens.tokenizer.get_vocab()
    assert {"Mann", "Hund", "Junge", "jungen", "ein", "der", "Hunde"} <= vocabulary.keys()
    assert not {"Ein", "Der", "mann", "hund"} & vocabulary.keys()
    assert words(tokens, "Der Junge lacht.", "de") == ["der", "Junge", "lacht"]
    assert words(tokens, "Hunde rennen", "de") == ["Hunde", "rennen"]
    assert words(tokens, "The DOG runs.", "en") == ["the", "dog", "runs"]


def test_french_elisions_are_words_and_english_endings_are_not(tokens: CaptionTokens) -> None:
    assert words(tokens, "L\u2019homme dort", "fr") == ["l'", "homme", "dort"]
    assert words(tokens, "jusqu'au soir", "fr") == ["jusqu'", "au", "soir"]
    assert words(tokens, "a man's dog", "en") == ["a", "man's", "dog"]


def test_chinese_characters_are_words(tokens: CaptionTokens) -> None:
    expected = ["男", "人", "，", "跑", "步"]
    assert words(tokens, "男人，跑步。", "zh") == expected


@pytest.mark.parametrize(
    ("language", "caption"),
    [
        ("en", "A man's dog, in the hall."),
        ("de", "Ein junger Mann, der neben der jungen Frau sitzt."),
        ("fr", "L'homme s'assied à l'ombre, jusqu'au soir."),
        ("cs", "Žluťoučký kůň, který běží."),
        ("zh", "一个男人，在海边跑步。"),
    ],
)
def test_captions_are_read_and_written_as_their_language_is(
    tokens: CaptionTokens, tmp_path: Path, language: str, caption: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokens.tokenizer.to_str(), encoding="utf-8")
    plain = Tokenizer(path, tokens.text)
    tokenizer = plain.for_text(tokens.language_text.get(language, tokens.text))
    ids = tokens.encode(caption, language)
    assert tokenizer.decode(ids) == caption
    assert "".join(tokenizer.stream(ids)) == caption
    assert tuple(tokenizer.encode(tokenizer.without_final_period(caption))) == ids
    assert plain.decode(tokens.encode("a dog", "en")) == "A dog."


def test_the_first_languages_words_come_first_and_commas_only_where_asked_for() -> None:
    made = build_tokens(TokenizerConfig(kind="words", least_seen=1), LINES, ENGLISH)
    ids = made.tokenizer.get_vocab()
    english = {"a", "the", "in", "dog", "man's", "hall", "runs", "sea"}
    assert max(ids[word] for word in english) < min(ids[word] for word in ("soir", "kůň", "男"))
    assert not {",", "，"} & ids.keys()


def test_texts_count_for_their_own_language() -> None:
    lines = {
        "en": Lines(captions=["rare word"], texts=["seen often"] * 3),
        "de": Lines(captions=["ein Wort"] * 2, texts=["rare"] * 2),
    }
    config = TokenizerConfig(kind="words", least_seen=2, least_seen_in_text=3)
    ids = build_tokens(config, lines, ENGLISH).tokenizer.get_vocab()
    assert {"seen", "often", "ein", "wort"} <= ids.keys()
    assert not {"rare", "word"} & ids.keys()


def test_details_have_a_token_each() -> None:
    config = TokenizerConfig(kind="words", least_seen=1, details=True)
    made = build_tokens(config, {"en": LINES["en"]}, ENGLISH)
    ids = made.tokenizer.get_vocab()
    assert made.details == {name: ids[f"<{name}>"] for name in ("short", "normal", "long")}
    assert set(made.details.values()) <= set(made.never)
    pretrained = TokenizerConfig(kind="pretrained", name="gpt2", details=True)
    with pytest.raises(ConfigError, match=r"tokenizer\.details need tokens"):
        build_tokens(pretrained, {"en": LINES["en"]}, ENGLISH)
