"""Tokens become captions, and pieces of them, that joined are the caption."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from capsmith.bundle import TextRules
from capsmith.errors import BundleError
from capsmith.runtime.tokenizer import Tokenizer
from tests.bundles import SPECIAL, word_tokenizer

WORDS = (*SPECIAL, "a", "dog", ",", "running", "'s", "do", "n't", "(", ")", ".", "!", "it", "n")
PLAIN = TextRules(lowercase_prompt=False, capitalise=False, final_period=False, join=" ")
NICE = TextRules(lowercase_prompt=True, capitalise=True, final_period=True, join=" ")
BYTES = TextRules(lowercase_prompt=False, capitalise=True, final_period=True, join="")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    word_tokenizer(WORDS).save(str(path))
    return path


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a dog 's ball , a cat does n't run"] * 5, trainer)
    tokenizer.save(str(path))
    return path


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


@pytest.mark.parametrize(
    ("spoken", "plain", "nice"),
    [
        ("a dog , running", "a dog, running", "A dog, running."),
        ("a dog 's dog", "a dog's dog", "A dog's dog."),
        ("do n't !", "don't!", "Don't!"),
        ("a ( dog ) .", "a (dog).", "A (dog)."),
        ("it n dog", "it n dog", "It n dog."),
        ("", "", ""),
        ("<bos> a dog <eos> <pad>", "a dog", "A dog."),
    ],
)
def test_captions_read_well(words: Path, spoken: str, plain: str, nice: str) -> None:
    assert Tokenizer(words, PLAIN).decode(ids(spoken)) == plain
    assert Tokenizer(words, NICE).decode(ids(spoken)) == nice


def test_prompts_are_encoded_as_the_model_spells(words: Path) -> None:
    assert Tokenizer(words, NICE).encode("A Dog, running") == ids("a dog , running")
    assert Tokenizer(words, PLAIN).encode("A dog") == ids("<unk> dog")
    assert Tokenizer(words, NICE).without_final_period("A dog.") == "A dog"
    assert Tokenizer(words, PLAIN).without_final_period("a dog.") == "a dog."
    assert Tokenizer(words, NICE).vocab["dog"] == WORDS.index("dog")


def test_words_are_said_as_soon_as_they_are_settled(words: Path) -> None:
    said = []
    stream = Tokenizer(words, NICE).stream(token for token in ids("a dog 's dog , running"))
    for piece in stream:
        said.append(piece)
    assert said == ["A", " dog", "'s dog", ",", " running", "."]


@given(st.lists(st.integers(0, len(WORDS) - 1), max_size=12))
@settings(max_examples=300, deadline=None)
def test_joined_pieces_are_the_caption_in_words(words: Path, tokens: list[int]) -> None:
    for rules in (PLAIN, NICE):
        tokenizer = Tokenizer(words, rules)
        assert "".join(tokenizer.pieces(tokens)) == tokenizer.decode(tokens)


@given(st.lists(st.integers(0, 299), max_size=16))
@settings(max_examples=300, deadline=None)
def test_joined_pieces_are_the_caption_in_bytes(byte_pairs: Path, tokens: list[int]) -> None:
    tokenizer = Tokenizer(byte_pairs, BYTES)
    assert "".join(tokenizer.pieces(tokens)) == tokenizer.decode(tokens)


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_pieces_never_cut_a_character(byte_pairs: Path, text: str) -> None:
    tokenizer = Tokenizer(byte_pairs, BYTES)
    pieces = tokenizer.pieces(tokenizer.encode(text))
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces).replace(text, "")
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_characters_of_several_tokens_come_whole(byte_pairs: Path) -> None:
    tokenizer = Tokenizer(byte_pairs, BYTES)
    tokens = tokenizer.encode("ein 🐕 läuft")
    assert len(tokens) > len("ein 🐕 läuft")
    pieces = tokenizer.pieces(tokens)
    assert "".join(pieces) == "Ein 🐕 läuft."
    assert any("🐕" in piece for piece in pieces)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"model": 3}'])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Tokenizer(path, PLAIN)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
