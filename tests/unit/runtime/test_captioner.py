"""The captioner: one result whatever the batch, the thread or the process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import capsmith
from capsmith import (
    Beam,
    BundleError,
    Caption,
    Captioner,
    ConfigError,
    Contrastive,
    DataError,
    Greedy,
    ImageError,
    Limits,
    Sample,
    TopN,
)
from capsmith.runtime.pictures import PictureLimits
from tests.bundles import VOCABULARY, toy_bundle

STRATEGIES = [Greedy(), Beam(size=4, candidates=3), Sample(seed=3), TopN(seed=1), Contrastive()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("bundles") / "toy").folder


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Captioner:
    return capsmith.load(folder, threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 photo files, JPEG and PNG, of mixed shapes."""
    made = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(0)
    paths = []
    for index in range(24):
        small = numbers.integers(0, 256, (4, 4, 3), np.uint8)
        size = (40 + 7 * index, 100 - 2 * index)
        path = made / f"{index:02}.{'jpg' if index % 2 else 'png'}"
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def texts(captioner: Captioner, photos: list[Path]) -> list[str]:
    """Captions of the photos, each alone; different enough that a mix-up would show."""
    alone = [captioner.caption(photo).text for photo in photos]
    assert len(set(alone)) > len(alone) // 2
    return alone


def test_what_a_caption_holds(captioner: Captioner, photos: list[Path]) -> None:
    caption = captioner.caption(photos[1], Beam(size=4, candidates=3))
    assert caption.text == caption.candidates[0].text
    assert caption.token_ids == caption.candidates[0].token_ids
    assert caption.language == "en"
    assert len({candidate.text for candidate in caption.candidates}) == 3
    assert len(caption.tokens) == len(caption.token_ids)
    steps = len(caption.token_ids) + (caption.finish_reason == "stop")
    assert caption.mean_logprob == pytest.approx(caption.logprob / steps)
    assert caption.text.endswith(".")
    assert [VOCABULARY[token] for token in caption.token_ids] == list(caption.tokens)
    assert caption.to_dict()["candidates"][0]["text"] == caption.text


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_a_caption_is_the_same_alone_and_in_any_batch_and_order(
    captioner: Captioner, folder: Path, photos: list[Path], strategy: capsmith.types.Strategy
) -> None:
    alone = {photo: captioner.caption(photo, strategy) for photo in photos}
    order = random.Random(0).sample(photos, len(photos))
    two_threads = capsmith.load(folder, threads=2)
    for other in (captioner, two_threads):
        for batch_size in (1, 2, 3, 16):
            together = other.caption_many(order, strategy, batch_size=batch_size)
            for photo, caption in zip(order, together, strict=True):
                assert caption.token_ids == alone[photo].token_ids
                assert [c.text for c in caption.candidates] == [
                    c.text for c in alone[photo].candidates
                ]
                assert caption.logprob == pytest.approx(alone[photo].logprob, abs=1e-5)


def test_every_kind_of_picture_gives_the_same_caption(
    captioner: Captioner, photos: list[Path]
) -> None:
    path = photos[0]  # PNG: decoding is exact
    image = Image.open(path).convert("RGB")
    with path.open("rb") as file:
        kinds = [path, str(path), path.read_bytes(), file, image, np.asarray(image)]
        captions = captioner.caption_many(kinds)
    assert len(set(captions)) == 1


def test_features_now_and_captions_later(captioner: Captioner, photos: list[Path]) -> None:
    features = captioner.encode(photos)
    assert features.shape == (24, 4, 8)
    assert features.dtype == np.float32
    assert captioner.caption_features(features) == captioner.caption_many(photos)
    assert captioner.caption_features(features[:0]) == []
    assert captioner.encode([]).shape == (0, 4, 8)


@pytest.mark.parametrize(
    "features",
    [np.zeros((2, 4, 9), np.float32), np.zeros((4, 8), np.float32), np.zeros((2, 4, 8))],
    ids=["width", "axes", "float64"],
)
def test_features_of_another_encoder_are_refused(
    captioner: Captioner, features: np.ndarray[Any, Any]
) -> None:
    with pytest.raises(DataError, match=r"float32 \(n, 4, 8\)"):
        captioner.caption_features(features)


def test_vectors_are_the_pooled_features(captioner: Captioner, photos: list[Path]) -> None:
    vectors = captioner.embed(photos)
    assert vectors.dtype == np.float32
    means = captioner.encode(photos).mean(1)
    assert vectors == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True))


def test_vectors_of_the_first_row(tmp_path: Path, photos: list[Path]) -> None:
    encoder = {"name": "toy-patches", "rows": 4, "width": 8, "embedding": "first"}
    toy_bundle(tmp_path / "toy", changes={"encoder": encoder})
    other = capsmith.load(tmp_path / "toy", threads=1)
    first = other.encode(photos)[:, 0]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert other.embed(photos) == pytest.approx(expected)


def test_text_needs_a_text_tower(captioner: Captioner, tmp_path: Path) -> None:
    for needs in (
        lambda: captioner.embed_text([]),
        lambda: captioner.match(b"", ["a dog"]),
        lambda: captioner.caption(b"", Beam(rerank="match")),
    ):
        with pytest.raises(BundleError, match="has no text tower"):
            needs()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_streamed_pieces_joined_are_the_caption(
    captioner: Captioner, photos: list[Path], strategy: capsmith.types.Strategy
) -> None:
    for photo in photos[:6]:
        pieces = list(captioner.stream(photo, strategy, limits=Limits(prompt="two")))
        caption = captioner.caption(photo, strategy, limits=Limits(prompt="two"))
        assert "".join(pieces) == caption.text
        assert caption.text.startswith("Two")


def test_a_captions_score_is_its_log_probability(captioner: Captioner, photos: list[Path]) -> None:
    finished = 0
    for photo in photos:
        caption = captioner.caption(photo)
        if caption.finish_reason == "stop":
            finished += 1
            score = captioner.score(photo, caption.text)
            assert score == pytest.approx(caption.logprob, abs=1e-5)
    assert finished > 5
    assert captioner.score(photos[0], "a dog runs") < 0
    with pytest.raises(ConfigError, match="does not know: 'zebra'"):
        captioner.score(photos[0], "a zebra")


def test_limits_reach_the_decoder(captioner: Captioner, photos: list[Path]) -> None:
    short = captioner.caption(photos[2], limits=Limits(min_tokens=4, max_tokens=4))
    assert len(short.token_ids) == 4
    assert short.finish_reason == "length"
    for photo in photos[:5]:
        before = captioner.caption(photo, Greedy())
        for word in {word for word in before.tokens if word.isalpha()}:
            limits = Limits(forbidden_words=(word.capitalize(), "zebra"))
            assert word not in captioner.caption(photo, Greedy(), limits=limits).tokens
    stopped = captioner.caption(photos[2], Greedy(), limits=Limits(stop=(",",)))
    assert "," not in stopped.tokens


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(prompt="a zebra"), "'zebra'"),
        (Limits(prompt=" ".join(["dog"] * 12)), "shorten"),
        (Limits(max_tokens=13), "up to 12"),
        (Limits(prompt="a dog", max_tokens=11), "up to 10"),
        (Limits(stop=("a dog",)), "one token"),
        (Limits(forbidden_words=(" ",)), "empty word"),
        (Limits(min_tokens=9, max_tokens=3), "min_tokens"),
    ],
)
def test_limits_that_cannot_be_kept_are_one_line(
    captioner: Captioner, photos: list[Path], limits: Limits, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        captioner.caption(photos[0], limits=limits)
    assert "\n" not in str(caught.value)


def test_what_is_no_strategy_is_refused(captioner: Captioner, photos: list[Path]) -> None:
    with pytest.raises(ConfigError, match="a str is no strategy"):
        captioner.caption(photos[0], "beam")  # type: ignore[arg-type]


def test_languages(captioner: Captioner, photos: list[Path]) -> None:
    assert captioner.languages == ("en", "de")
    german = captioner.caption_many(photos, language="de")
    assert {caption.language for caption in german} == {"de"}
    assert [c.text for c in german] != [c.text for c in captioner.caption_many(photos)]
    with pytest.raises(ConfigError, match="'fr' is not in toy; it has: en, de"):
        captioner.caption(photos[0], language="fr")


def test_the_bundles_own_defaults_are_used(tmp_path: Path, photos: list[Path]) -> None:
    decoding = {"strategy": {"kind": "greedy"}, "limits": {"max_tokens": 2, "prompt": "red"}}
    toy_bundle(tmp_path / "toy", changes={"decoding": decoding})
    other = capsmith.load(tmp_path / "toy", threads=1)
    by_default = other.caption(photos[0])
    limits = Limits(max_tokens=2, prompt="red")
    assert by_default == other.caption(photos[0], Greedy(), limits=limits)
    assert len(by_default.token_ids) <= 2
    assert len(other.caption(photos[2], limits=Limits(min_tokens=2)).token_ids) == 2


def test_unreadable_pictures_are_told_in_order_and_the_others_go_on(
    captioner: Captioner, photos: list[Path], texts: list[str], tmp_path: Path
) -> None:
    pictures: list[Any] = list(photos[:7])
    pictures[0] = tmp_path / "missing.jpg"
    pictures[4] = b"not a picture"
    seen: list[tuple[int, str]] = []
    for caption in captioner.iter_captions(
        pictures, on_error=lambda index, error: seen.append((index, str(error))), batch_size=3
    ):
        seen.append((-1, caption.text))
    told = [index for index, _ in seen]
    assert told == [0, -1, -1, -1, 4, -1, -1]
    assert [text for index, text in seen if index < 0] == [texts[i] for i in (1, 2, 3, 5, 6)]
    assert "missing.jpg" in seen[0][1]


def test_without_a_callback_the_first_unreadable_picture_raises(
    captioner: Captioner, photos: list[Path], texts: list[str]
) -> None:
    captions = captioner.iter_captions([photos[0], b"no", photos[1]])
    assert next(captions).text == texts[0]
    with pytest.raises(ImageError):
        next(captions)
    with pytest.raises(ImageError):
        captioner.caption(b"no")
    with pytest.raises(ImageError):
        captioner.encode([photos[0], b"no"])


def test_pictures_are_taken_lazily(captioner: Captioner, photos: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield photos[taken % len(photos)]

    captions = captioner.iter_captions(endless(), Greedy(), batch_size=4)
    first = [next(captions) for _ in range(9)]
    assert taken <= 16
    captions.close()  # type: ignore[attr-defined]
    assert first[0].text == captioner.caption(photos[1], Greedy()).text


@pytest.mark.parametrize("pictures", ["dog.jpg", b"bytes", Path("dog.jpg"), 3])
def test_one_picture_where_many_are_meant_is_refused(captioner: Captioner, pictures: Any) -> None:
    with pytest.raises(ConfigError, match="give a list"):
        captioner.caption_many(pictures)


def test_options_are_checked(captioner: Captioner, folder: Path, photos: list[Path]) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        captioner.caption_many(photos, batch_size=0)
    with pytest.raises(ConfigError, match="device"):
        capsmith.load(folder, device="abacus")
    for threads in (0, 100_000):
        with pytest.raises(ConfigError, match="threads"):
            capsmith.load(folder, threads=threads)


def test_addresses_are_opened_only_by_the_callers_function(
    captioner: Captioner, folder: Path, photos: list[Path], texts: list[str]
) -> None:
    with pytest.raises(ImageError, match="open_url"):
        captioner.caption("https://example.org/dog.png")
    asked: list[str] = []

    def open_url(address: str) -> bytes:
        asked.append(address)
        return photos[0].read_bytes()

    opener = capsmith.load(folder, threads=1, open_url=open_url)
    assert opener.caption("https://example.org/dog.png").text == texts[0]
    assert asked == ["https://example.org/dog.png"]


def test_picture_limits_are_kept(folder: Path, photos: list[Path]) -> None:
    strict = capsmith.load(folder, threads=1, picture_limits=PictureLimits(max_pixels=10))
    with pytest.raises(ImageError, match="pixels"):
        strict.caption(photos[0])


def test_a_bundle_without_encoder_captions_features(
    captioner: Captioner, tmp_path: Path, photos: list[Path]
) -> None:
    toy_bundle(tmp_path / "toy", files={"encoder.onnx": None})
    half = capsmith.load(tmp_path / "toy", threads=1)
    features = captioner.encode(photos)
    assert half.caption_features(features) == captioner.caption_features(features)
    with pytest.raises(BundleError, match="toy-patches"):
        half.caption(photos[0])
    with pytest.raises(BundleError, match="toy-patches"):
        half.caption_many(photos)


def test_many_threads_share_one_captioner(captioner: Captioner, photos: list[Path]) -> None:
    texts = [captioner.caption(photo, Greedy()).text for photo in photos]

    def work(seed: int) -> list[tuple[int, str]]:
        order = random.Random(seed).choices(range(len(photos)), k=100)
        return [(index, captioner.caption(photos[index], Greedy()).text) for index in order]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(8)):
            assert [text for _, text in results] == [texts[index] for index, _ in results]


def test_pickled_it_is_path_and_options(
    captioner: Captioner, folder: Path, photos: list[Path], texts: list[str]
) -> None:
    data = pickle.dumps(captioner)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.bundle == captioner.bundle
    assert copy.caption(photos[0]).text == texts[0]


def _caption_all(captioner: Captioner, photos: list[Path]) -> list[str]:
    return [caption.text for caption in captioner.caption_many(photos)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_processes_caption_alike(
    folder: Path, photos: list[Path], texts: list[str], method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    captioner = capsmith.load(folder, threads=2)  # a session with threads, which no child has
    assert captioner.caption(photos[0]).text == texts[0]
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        results = pool.starmap_async(_caption_all, [(captioner, photos)] * 2).get(timeout=120)
    assert results == [texts, texts]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_the_captioner_it_was_given_and_ends(
    folder: Path, photos: list[Path], texts: list[str]
) -> None:
    captioner = capsmith.load(folder, threads=2)
    captioner.caption(photos[0])
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            right = captioner.caption(photos[0]).text == texts[0]
            del captioner
            gc.collect()
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert captioner.caption(photos[1]).text == texts[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_photos(captioner: Captioner, photos: list[Path]) -> None:
    def resident_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def run(count: int) -> None:
        pictures = (photos[index % len(photos)] for index in range(count))
        for _ in captioner.iter_captions(pictures, Greedy()):
            pass

    run(200)
    before = resident_bytes()
    run(1000)
    assert resident_bytes() - before < 8_000_000


def test_notebooks_show_photo_and_text(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may import it
    assert captioner.caption(photos[0]).thumbnail is None
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    caption = captioner.caption(photos[0])
    page = caption._repr_html_()
    assert caption.text in page
    assert 'src="data:image/jpeg;base64,' in page
    assert "thumbnail" not in caption.to_dict()
    assert "thumbnail" not in repr(caption)
    hostile = Caption(
        text='<script>"',
        language="en",
        logprob=0.0,
        mean_logprob=0.0,
        tokens=(),
        token_ids=(),
        candidates=(),
        finish_reason="stop",
    )
    assert "<script>" not in hostile._repr_html_()
    assert "<img" not in hostile._repr_html_()
