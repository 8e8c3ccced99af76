"""Contrastive training: its space, its draws, its loss, and that it learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from capsmith.data.manifest import Photo
from capsmith.data.photos import PhotoBytes
from capsmith.data.rows import CaptionLine, Place
from capsmith.errors import DataError
from capsmith.models.text_tower import TextTower, TextTowerConfig, train_text_tokenizer
from capsmith.training.contrastive import (
    Captions,
    contrastive_loss,
    padded,
    tokenise,
    train_tower,
    whitening,
)
from capsmith.training.tower_recipe import TowerTraining

WORDS = ("red", "green", "blue", "white", "rot", "grün", "blau", "weiß")
SETTINGS = TowerTraining(steps=120, batch=8, rank=3, learning_rate=1e-2, warmup=5, average=0.9)


def photos_of(count: int) -> list[Photo]:
    """Photos of four colours, captioned in two languages."""

    def line(text: str, language: str, weight: float) -> CaptionLine:
        return CaptionLine(
            text=text, language=language, place=Place(Path("c.csv"), 1), weight=weight
        )

    return [
        Photo(
            id=f"{number}.jpg",
            source=PhotoBytes(Path(f"{number}.jpg")),
            captions=(
                line(f"a {WORDS[number % 4]} wall", "en", 1.0),
                line(f"eine Wand in {WORDS[4 + number % 4]}", "de", 3.0),
            ),
        )
        for number in range(count)
    ]


def vectors_of(count: int) -> torch.Tensor:
    """Embeddings (count, 12) that share a mean and differ by colour and a little by chance."""
    draw = torch.Generator().manual_seed(0)
    colours = torch.randn(4, 12, generator=draw)
    rows = 3 + colours[torch.arange(count) % 4] + 0.2 * torch.randn(count, 12, generator=draw)
    return F.normalize(rows, dim=1)


def test_whitened_photos_vary_alike_and_forget_the_mean() -> None:
    photos = vectors_of(64)
    space = whitening(photos, 6)
    found = space.coordinates(photos)
    assert found.shape == (64, 6)
    centred = found - found.mean(0)
    assert torch.allclose(centred.T @ centred / 64, torch.eye(6), atol=1e-3)
    mean = F.normalize(photos.mean(0), dim=0)
    assert (mean @ space.basis).abs().max() < 1e-3
    made = torch.randn(5, 6)
    expected = (made @ space.basis.T).norm(dim=1, keepdim=True)
    assert torch.allclose(space.lengths(made), expected, rtol=1e-4)


def test_whitening_takes_no_more_directions_than_there_are() -> None:
    assert whitening(vectors_of(5), 100).basis.shape[1] <= 5


def test_captions_are_drawn_by_weight_from_their_own_photo() -> None:
    tokenizer = train_text_tokenizer(["a"], vocab_size=300, max_tokens=9)
    captions = tokenise(photos_of(3), tokenizer, 0)
    assert len(captions.tokens) == 6
    drawn = Counter(captions.draw([1] * 4000, np.random.default_rng(0)))
    assert set(drawn) == {2, 3}
    assert drawn[3] / 4000 == pytest.approx(0.75, abs=0.03)
    rng = np.random.default_rng(0)
    assert all(line // 2 == 2 for line in captions.draw([2] * 50, rng))


def test_captions_are_cut_while_training() -> None:
    tokenizer = train_text_tokenizer(["a"], vocab_size=300, max_tokens=9)
    assert max(map(len, tokenise(photos_of(2), tokenizer, 0).tokens)) == 9
    assert {len(tokens) for tokens in tokenise(photos_of(2), tokenizer, 4).tokens} == {4}


def test_no_step_sets_captions_of_one_photo_against_each_other() -> None:
    seen: list[list[int]] = []

    class Watching(Captions):
        def draw(self, photos: Sequence[int], rng: np.random.Generator) -> list[int]:
            seen.append(list(photos))
            return super().draw(photos, rng)

    tokenizer = train_text_tokenizer(["a"], vocab_size=300, max_tokens=9)
    plain = tokenise(photos_of(20), tokenizer, 0)
    captions = Watching(plain.tokens, plain.first, plain.ends)
    tower = TextTower(
        TextTowerConfig(width=8, heads=2), vocab_size=tokenizer.get_vocab_size(), output_width=12
    )
    train_tower(tower, captions, vectors_of(20), replace(SETTINGS, steps=5))
    assert [len(set(photos)) for photos in seen] == [8] * 5
    assert len({photo for photos in seen[:2] for photo in photos}) == 16


def test_the_loss_is_the_mean_of_both_ways() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = -(logits.log_softmax(1).diagonal()).mean()
    columns = -(logits.log_softmax(0).diagonal()).mean()
    assert contrastive_loss(logits) == pytest.approx(((rows + columns) / 2).item())


def trained(seed: int = 0) -> tuple[TextTower, torch.Tensor]:
    photos, vectors = photos_of(32), vectors_of(32)
    texts = [caption.text for photo in photos for caption in photo.captions]
    tokenizer = train_text_tokenizer(texts, vocab_size=400, max_tokens=9)
    torch.manual_seed(seed)
    config = TextTowerConfig(width=16, heads=2, inner=2, dropout=0.1)
    tower = TextTower(config, vocab_size=tokenizer.get_vocab_size(), output_width=12)
    tower = train_tower(
        tower, tokenise(photos, tokenizer, 0), vectors, replace(SETTINGS, seed=seed)
    )
    with torch.no_grad():
        made = tower(padded([tokenizer.encode(text).ids for text in texts[:8]]))
    return tower, F.normalize(made, dim=1)


def test_texts_in_both_languages_find_photos_of_their_colour() -> None:
    tower, texts = trained()
    assert not tower.training
    assert texts.shape == (8, 12)
    cosines = texts @ vectors_of(32).T
    right = torch.arange(8).unsqueeze(1) // 2 == torch.arange(32) % 4
    for row, is_right in zip(cosines, right, strict=True):
        assert row[is_right].min() > row[~is_right].max()


def test_the_seed_decides_everything() -> None:
    assert torch.equal(trained()[1], trained()[1])
    assert not torch.equal(trained()[1], trained(seed=1)[1])


def test_one_photo_is_not_enough() -> None:
    tokenizer = train_text_tokenizer(["a"], vocab_size=300, max_tokens=9)
    tower = TextTower(TextTowerConfig(width=8, heads=2), vocab_size=300, output_width=12)
    with pytest.raises(DataError, match="two photos"):
        train_tower(tower, tokenise(photos_of(1), tokenizer, 0), vectors_of(1), SETTINGS)
