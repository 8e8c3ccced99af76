"""A BPE trained on captions spells every text, and is read by the runtime's tokenizer."""

from __future__ import annotations

from pathlib import Path

from capsmith.bundle import TextRules
from capsmith.models.bpe import END, START, train_bpe
from capsmith.runtime.tokenizer import Tokenizer

CAPTIONS = [
    "A dog runs over the grass.",
    "Two dogs run, one after the other.",
    "A child runs after a dog on the grass.",
] * 3


def test_captions_are_spelled_in_few_tokens_and_come_back(tmp_path: Path) -> None:
    trained = train_bpe(CAPTIONS, vocab_size=320)
    trained.save(str(tmp_path / "tokenizer.json"))
    rules = TextRules(lowercase_prompt=True, capitalise=True, final_period=False, join="")
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", rules)
    assert trained.get_vocab_size() <= 320
    assert [trained.token_to_id(name) for name in (START, END)] == [0, 1]
    for caption in CAPTIONS[:3]:
        ids = tokenizer.encode(caption)
        assert tokenizer.decode([0, *ids, 1]) == caption
        assert len(ids) < len(caption) / 3
        assert "".join(tokenizer.stream(ids)) == caption
    strange = "un garçon, 狗 & 🐕"
    assert tokenizer.decode(tokenizer.encode(strange)) == "U" + strange[1:]


def test_a_word_is_the_same_token_wherever_it_stands() -> None:
    tokenizer = train_bpe(CAPTIONS, vocab_size=320)
    assert tokenizer.encode("dog").ids == tokenizer.encode("a dog").ids[1:]


def test_the_same_captions_give_the_same_tokenizer() -> None:
    first, second = (train_bpe(CAPTIONS, vocab_size=300) for _ in range(2))
    assert first.to_str() == second.to_str()
    cased = train_bpe(CAPTIONS, vocab_size=320, lowercase=False)
    assert cased.encode("A").ids != cased.encode("a").ids
