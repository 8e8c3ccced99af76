"""The text tower's tokens and module."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from capsmith.errors import ConfigError
from capsmith.models.text_tower import (
    END_ID,
    PAD_ID,
    TextTower,
    TextTowerConfig,
    train_text_tokenizer,
)

TEXTS = [
    "a dog runs on the beach",
    "ein Hund läuft am Strand",
    "一只狗在沙滩上奔跑",
    "两只狗奔跑",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_text_tokenizer(TEXTS, vocab_size=400, max_tokens=8)


@pytest.fixture
def tower() -> TextTower:
    torch.manual_seed(0)
    config = TextTowerConfig(width=12, heads=3, inner=2, dropout=0.5)
    return TextTower(config, vocab_size=30, output_width=7).eval()


def test_tokens_of_any_text_end_alike(tokenizer) -> None:
    assert tokenizer.encode("").ids == [END_ID]
    assert tokenizer.token_to_id("<pad>") == PAD_ID
    for text in ("a dog", "łódź", "犬が走る", "🐕\x00", "<end><pad>"):
        ids = tokenizer.encode(text).ids
        assert ids[-1] == END_ID
        assert len(ids) > 1


def test_long_texts_are_cut_before_their_end(tokenizer) -> None:
    long = tokenizer.encode("a dog runs on the beach " * 9).ids
    assert len(long) == 8
    assert long[-1] == END_ID
    assert long[:-1] == tokenizer.encode("a dog runs on the beach a dog").ids[:7]


def test_every_han_character_is_a_token(tokenizer) -> None:
    assert len(tokenizer.encode("沙滩上狗").ids) == 4 + 1
    assert len(tokenizer.encode("beach").ids) == 1 + 1
    assert tokenizer.encode("狗dog").ids == tokenizer.encode("狗 dog").ids


def test_a_word_is_the_same_wherever_it_stands(tokenizer) -> None:
    (dog, _), (a, inside, _) = tokenizer.encode("dog").ids, tokenizer.encode("a dog").ids
    assert dog == inside != a


def test_case_and_width_are_folded(tokenizer) -> None:
    assert tokenizer.encode("Ａ ＤＯＧ").ids == tokenizer.encode("a dog").ids


def test_padding_changes_nothing(tower: TextTower) -> None:
    tokens = torch.tensor([[5, 6, 7, END_ID], [8, END_ID, PAD_ID, PAD_ID]])
    vectors = tower(tokens)
    assert vectors.shape == (2, 7)
    assert torch.allclose(tower(torch.tensor([[8, END_ID]])), vectors[1:], atol=1e-6)
    longer = torch.nn.functional.pad(tokens, (0, 5))
    assert torch.allclose(tower(longer), vectors, atol=1e-6)


def test_a_token_sees_its_neighbours(tower: TextTower) -> None:
    orders = torch.tensor([[5, 6, 7, END_ID], [7, 5, 6, END_ID], [5, 7, 6, END_ID]])
    vectors = tower(orders)
    assert torch.pdist(vectors).min() > 1e-4


def test_the_scale_is_bounded(tower: TextTower) -> None:
    assert tower.scale.item() == pytest.approx(20)
    with torch.no_grad():
        tower.log_scale.fill_(100.0)
    assert tower.scale.item() == 500


@pytest.mark.parametrize("sizes", [{"width": 10, "heads": 3}, {"inner": 0}, {"dropout": 1.0}])
def test_sizes_that_make_no_tower(sizes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="tower"):
        TextTowerConfig(**sizes)  # type: ignore[arg-type]
