"""`capsmith tune` on a handful of photos, and what it says of two captioners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

import capsmith
from capsmith.data.sources import DataSource, read_data
from capsmith.evaluate.report import report
from capsmith.evaluate.statistics import Interval, paired_difference
from capsmith.training.tune import Comparison, compare, language_of
from tests.datasets import write_photos
from tests.integration.command import capsmith as run

PHOTOS = 32


def write_own_photos(folder: Path, count: int) -> Path:
    """Patches and plain photos, captioned in words that the embedded captioner never says."""
    names = [f"{number:02}.jpg" for number in range(count)]
    write_photos(folder, names)
    for number, name in enumerate(names):
        if number % 2:
            colour = ((number * 53) % 256, (number * 101) % 256, (number * 29) % 256)
            Image.new("RGB", (48, 32), colour).save(folder / name)
    said = ("a quilt of colored patches", "one plain wall")
    rows = [f"{name},{said[number % 2]}\n" for number, name in enumerate(names)]
    (folder / "captions.csv").write_text("image,caption\n" + "".join(rows))
    return folder / "captions.csv"


@pytest.mark.ci
@pytest.mark.slow
def test_tuning_learns_the_words_of_ones_own_photos(tmp_path: Path) -> None:
    captions = write_own_photos(tmp_path, PHOTOS)
    done = run("tune", captions, "--output", tmp_path / "run", cwd=tmp_path)
    assert done.status == 0, done.complaints
    assert any(line.startswith("better: CIDEr") for line in done.lines), done.lines
    data = read_data([DataSource(path=str(tmp_path / "run" / "data.jsonl"))])
    splits = {name: data.of_split(name).photos for name in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == PHOTOS
    assert all(splits.values())
    tuned = capsmith.load(tmp_path / "run" / "best")
    held_out = [photo.source.picture() for photo in splits["test"]]
    said = {caption.text for caption in tuned.caption_many(held_out)}
    assert said == {"A quilt of colored patches.", "One plain wall."}


def test_a_captioner_of_several_languages_is_tuned_in_that_of_the_captions(tmp_path: Path) -> None:
    captions = str(write_own_photos(tmp_path, 2))
    german = read_data([DataSource(path=captions, language="de")])
    assert language_of(german, ("en", "de", "zh")) == "de"
    assert language_of(german, ("en", "zh")) == "en"
    both = read_data([DataSource(path=captions), DataSource(path=captions, language="de")])
    assert language_of(both, ("en", "de", "zh")) == "en"


def test_a_captioner_is_not_better_than_itself(tmp_path: Path) -> None:
    photos = read_data([DataSource(path=str(write_own_photos(tmp_path, 4)))]).photos
    captioner = capsmith.load()
    found = compare(captioner, captioner, photos, "en")
    assert found.difference.value == 0
    assert found.verdict.startswith("no measurable difference: CIDEr")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse, keep the old one"), (-0.1, 0.1, "no measurable")],
)
def test_the_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    scores = report(["a dog", "a cat"], [["a dog"], ["a cat"]])
    assert Comparison(scores, scores, Interval(0.0, low, high), 2).verdict.startswith(verdict)


def test_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(1.0, 1.0, 200)
    interval = paired_difference(first, first + 0.05 + generator.normal(0, 0.01, 200))
    assert interval.low > 0.04, "what differs from photo to photo alike in both does not count"
    assert interval.high < 0.06


def test_too_few_photos_are_refused(tmp_path: Path) -> None:
    captions = write_own_photos(tmp_path, 5)
    done = run("tune", captions, "--output", tmp_path / "run", cwd=tmp_path)
    assert done.status == 1
    (told,) = done.complaints
    assert "5 photos have captions in en; tuning needs 24" in told
