"""Recall@k against a count by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from capsmith.errors import DataError
from capsmith.evaluate.retrieval import AT, retrieval


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_recall_is_what_sorting_finds() -> None:
    draw = np.random.default_rng(0)
    photos = unit(draw.normal(size=(40, 6)))
    owners = [*range(40), *draw.integers(0, 40, 60).tolist()]
    texts = unit(photos[owners] + draw.normal(size=(100, 6)) * 0.5)
    found = retrieval(photos, texts, owners)
    for k, photo, text in zip(AT, found.photo, found.text, strict=True):
        nearest = np.argsort(-(texts @ photos.T), axis=1)[:, :k]
        hits = [owner in row for owner, row in zip(owners, nearest, strict=True)]
        assert photo == pytest.approx(np.mean(hits))
        nearest = np.argsort(-(photos @ texts.T), axis=1)[:, :k]
        hits = [any(owners[text] == photo for text in row) for photo, row in enumerate(nearest)]
        assert text == pytest.approx(np.mean(hits))
    assert found.photos == 40
    assert found.texts == 100
    assert 0 < found.photo[0] < found.photo[2] < 1


def test_chance_is_that_of_drawing_without_replacement() -> None:
    photos = unit(np.random.default_rng(0).normal(size=(20, 4)))
    owners = [photo for photo in range(20) for _ in range(1 + photo % 2 * 4)]
    found = retrieval(photos, photos[owners], owners)
    assert found.random_photo == pytest.approx((1 / 20, 5 / 20, 10 / 20))
    texts = len(owners)
    for k, chance in zip(AT, found.random_text, strict=True):
        misses = [comb(texts - own, k) / comb(texts, k) for own in (1, 5)]
        assert chance == pytest.approx(1 - sum(misses) / 2)
    assert found.photo == (1.0, 1.0, 1.0)
    assert found.text == (1.0, 1.0, 1.0)


def test_a_tower_that_says_one_thing_finds_nothing() -> None:
    same = np.ones((30, 1), np.float32)
    found = retrieval(same, same, range(30))
    assert found.photo == (0.0, 0.0, 0.0)
    assert found.text == (0.0, 0.0, 0.0)
    assert found.to_dict()["photos"] == 30


def test_a_photo_without_a_text_is_an_error() -> None:
    with pytest.raises(DataError, match="photo 1 has no text"):
        retrieval(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:2], [0, 2])
