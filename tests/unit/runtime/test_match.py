"""Texts and pictures in one space: the text tower of a bundle, matching, and re-ranking by it."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import capsmith
from capsmith import Beam, BundleError, Captioner, ConfigError, ImageError, Limits, Match, Sample
from capsmith.runtime.match import matches
from capsmith.runtime.text_tokenizer import TextTokenizer
from tests.bundles import (
    VOCABULARY,
    bundle_with_text_tower,
    rewrite,
    text_tower_files,
    toy_bundle,
)

TEXTS = ["a dog", "two cats on grass", "", "ball", "a woman with a small red ball near water , and"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_with_text_tower(tmp_path_factory.mktemp("bundles") / "toy").folder


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Captioner:
    return capsmith.load(folder, threads=1)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def test_a_row_is_the_same_alone_and_among_others(captioner: Captioner) -> None:
    vectors = captioner.embed_text(TEXTS)
    assert vectors.shape == (5, 8)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5))
    order = random.Random(0).sample(range(5), 5)
    assert np.array_equal(captioner.embed_text([TEXTS[i] for i in order]), vectors[order])
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert np.array_equal(captioner.embed_text([text])[0], vector)
    assert len(np.unique(vectors, axis=0)) == 5
    assert captioner.embed_text(iter([])).shape == (0, 8)


def test_long_texts_are_cut(captioner: Captioner) -> None:
    words = "a dog runs on grass with the red ball in water near two children"
    vector = captioner.embed_text([words])
    assert np.array_equal(captioner.embed_text([" ".join(words.split()[:7])]), vector)
    assert not np.array_equal(captioner.embed_text([" ".join(words.split()[:6])]), vector)
    assert np.array_equal(captioner.embed_text([words + " cat" * 1_000_000]), vector)
    spaced = words.replace(" ", " \t\n ")
    assert np.array_equal(captioner.embed_text([spaced]), vector)


@given(st.text() | st.text(st.characters(categories=["Cs", "Cc", "So", "Lo"])))
def test_any_text_has_a_vector(text: str) -> None:
    (vector,) = _shared().embed_text([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def _shared(kept: list[Captioner] = []) -> Captioner:  # noqa: B006 - hypothesis takes no fixtures
    if not kept:
        kept.append(
            capsmith.load(Path(__file__).parents[2] / "data" / "bundles" / "format-2", threads=1)
        )
    return kept[0]


@pytest.mark.parametrize("texts", ["a dog", b"a dog", [b"a dog"], [None], 3])
def test_what_is_no_list_of_texts_is_refused(captioner: Captioner, texts: object) -> None:
    with pytest.raises(ConfigError):
        captioner.embed_text(texts)  # type: ignore[arg-type]


def test_the_best_match_comes_first(captioner: Captioner, photo: np.ndarray) -> None:
    found = captioner.match(photo, iter(TEXTS))
    cosines = captioner.embed_text(TEXTS) @ captioner.embed([photo])[0]
    order = np.argsort(-cosines)
    assert [match.text for match in found] == [TEXTS[i] for i in order]
    assert [match.cosine for match in found] == pytest.approx(cosines[order].tolist())
    exponents = np.exp(10.0 * cosines[order])
    assert [m.probability for m in found] == pytest.approx(exponents / exponents.sum(), rel=1e-4)
    assert captioner.match(photo, []) == ()
    (only,) = captioner.match(photo, ["ball"])
    assert only.probability == 1
    assert only.to_dict() == {"text": "ball", "cosine": only.cosine, "probability": 1.0}


def test_equals_stay_in_their_order() -> None:
    vectors = np.array([[0, 1], [1, 0], [0, 1]], np.float32)
    found = matches(np.array([0, 1], np.float32), ["b", "x", "a"], vectors, 1000.0)
    assert [match.text for match in found] == ["b", "a", "x"]
    assert [match.probability for match in found] == [0.5, 0.5, 0.0]
    assert found[0] == Match(text="b", cosine=1.0, probability=0.5)


def test_a_picture_that_cannot_be_read(captioner: Captioner) -> None:
    with pytest.raises(ImageError):
        captioner.match(b"no picture", TEXTS)


@pytest.mark.parametrize("kind", [Beam(size=6), Sample(candidates=6)], ids=["beam", "sample"])
def test_captions_ranked_by_match(
    captioner: Captioner, photo: np.ndarray, kind: Beam | Sample
) -> None:
    fields = {"candidates": 6, "rerank": "match"}
    strategy = type(kind)(**{**{name: getattr(kind, name) for name in kind.__slots__}, **fields})
    caption = captioner.caption(photo, strategy, limits=Limits(prompt="two"))
    texts = [candidate.text for candidate in caption.candidates]
    assert len(texts) > 1
    vectors = captioner.embed_text(texts)
    marks = vectors @ captioner.embed([photo])[0]
    assert list(marks) == sorted(marks, reverse=True)
    assert caption.text == texts[0]
    pieces = captioner.stream(photo, strategy, limits=Limits(prompt="two"))
    assert "".join(pieces) == caption.text
    others = np.random.default_rng(1).integers(0, 256, (3, 40, 60, 3), np.uint8)
    many = captioner.caption_many([*others, photo], strategy, limits=Limits(prompt="two"))
    assert [each.text for each in many[-1].candidates] == texts


def test_of_all_beams_the_best_match_is_kept(captioner: Captioner, photo: np.ndarray) -> None:
    every = captioner.caption(photo, Beam(size=6, candidates=6, rerank="match"))
    one = captioner.caption(photo, Beam(size=6, rerank="match"))
    assert one.candidates == every.candidates[:1]


def test_captioning_does_not_open_the_tower(tmp_path: Path, photo: np.ndarray) -> None:
    folder = bundle_with_text_tower(tmp_path / "toy").folder
    for name in ("text.onnx", "text_tokenizer.json"):
        (folder / name).write_bytes(b"broken")
    rewrite(folder)
    captioner = capsmith.load(folder, threads=1)
    assert captioner.caption(photo).text
    with pytest.raises(BundleError, match=r"text_tokenizer\.json: is not a tokenizer\.json"):
        captioner.embed_text(["a dog"])


def test_a_tower_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = bundle_with_text_tower(tmp_path / "toy").folder
    rewrite(folder, lambda d: d["encoder"].update(width=9))
    with pytest.raises(BundleError, match="export"):
        capsmith.load(folder, threads=1).embed_text(["a dog"])


def test_a_tokenizer_that_leaves_a_text_empty_is_refused(tmp_path: Path) -> None:
    files = text_tower_files()
    plain = json.loads(files["text_tokenizer.json"])
    plain["post_processor"] = None
    section = {"languages": ["en"], "max_tokens": 8, "scale": 10.0}
    files["text_tokenizer.json"] = json.dumps(plain).encode()
    folder = toy_bundle(tmp_path / "toy", changes={"text_tower": section}, files=files).folder
    with pytest.raises(BundleError, match="makes no token"):
        capsmith.load(folder, threads=1).embed_text([""])


def test_a_text_is_tokenised_in_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "text_tokenizer.json"
    path.write_bytes(text_tower_files()["text_tokenizer.json"])
    tokenizer = TextTokenizer(path, max_tokens=8)
    assert tokenizer.encode("dog " * 10_000_000) == [VOCABULARY.index("dog")] * 7 + [2]
    assert tokenizer.encode(" " * 10_000_000 + "dog") == [2]
    assert len(tokenizer.encode("狗" * 10_000_000)) <= 8


def test_threads_share_the_tower_and_it_travels(folder: Path) -> None:
    captioner = capsmith.load(folder, threads=1)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: captioner.embed_text(TEXTS), range(16)))
    assert all(np.array_equal(vectors, made[0]) for vectors in made)
    again = pickle.loads(pickle.dumps(captioner))
    assert np.array_equal(again.embed_text(TEXTS), made[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_tower_is_opened_again_after_a_fork(captioner: Captioner) -> None:
    mine = captioner.embed_text(TEXTS)
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(
        target=lambda: queue.put(captioner.embed_text(TEXTS))
    )
    child.start()
    theirs = queue.get()
    child.join()
    assert np.array_equal(mine, theirs)
