from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsmith.evaluate.languages import rule_of, tokenised
from capsmith.evaluate.tokenize import ptb_lines
from tests.datasets import SHARED


@pytest.mark.parametrize(
    ("language", "caption", "tokens"),
    [
        ("en", "The dog's owner can't see.", "the dog 's owner ca n't see"),
        ("en-GB", "A grey dog.", "a grey dog"),
        ("zh", "一个穿着T恤的女人，在海水里。", "一 个 穿 着 t 恤 的 女 人 在 海 水 里"),
        ("de", "Im T-Shirt, auf's Neue – „Straße“!", "im t-shirt auf's neue straße"),
        ("de", "2,5 Meter um 10:30 Uhr", "2,5 meter um 10:30 uhr"),
        ("cs", "Malá dívka leze do dřevěného domu.", "malá dívka leze do dřevěného domu"),
        ("fr", "L’homme qu'il voit aujourd'hui", "l' homme qu' il voit aujourd'hui"),
        ("fr", "Est-il jusqu'à l'eau?", "est-il jusqu' à l' eau"),
        ("fr", "'citation' l' d’", "citation l d"),
    ],
)
def test_tokens_of_each_language(language, caption, tokens):
    assert tokenised([caption], language) == [tokens]


def test_composed_and_decomposed_letters_are_the_same():
    assert tokenised([unicodedata.normalize("NFD", "Mädchen")], "de") == ["mädchen"]


def test_every_rule_has_a_name():
    assert rule_of("en-US") == "Penn Treebank"
    assert rule_of("zh_CN") == "characters"
    assert rule_of("cs") == rule_of("de") == "words"
    assert rule_of("fr") != rule_of("de")


@given(st.lists(st.text(), max_size=3), st.sampled_from(["zh", "de", "fr", "cs"]))
def test_any_text_gives_lower_case_words_without_punctuation(captions, language):
    lines = tokenised(captions, language)
    assert len(lines) == len(captions)
    assert all(any(c.isalnum() for c in token) for line in lines for token in line.split())


@pytest.mark.parametrize("name", ["captions.de.csv", "captions.fr.csv", "captions.cs.csv"])
def test_no_real_caption_loses_its_words(name):
    path = SHARED / "flickr8k" / name
    if not path.exists():
        pytest.skip(f"no captions at {path}")
    captions = [line.partition(",")[2] for line in path.read_text("utf-8").splitlines()[1:]]
    lines = tokenised(captions, name.split(".")[1])
    for caption, line in zip(captions, lines, strict=True):
        letters = [c for c in unicodedata.normalize("NFC", caption).lower() if c.isalnum()]
        assert [c for c in line if c.isalnum()] == letters
    assert lines != ptb_lines(captions)
