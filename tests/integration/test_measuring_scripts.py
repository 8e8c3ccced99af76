"""scripts/detail.py and scripts/every_metric.py on a handful of photos and a toy captioner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import capsmith
from capsmith import Limits
from capsmith.evaluate.report import report
from tests.bundles import toy_bundle
from tests.datasets import photo_bytes
from tests.integration.command import script

PHOTOS = 6
CAPTIONS = ("a dog runs on grass", "two red ball near water", "a small cat sits")
DETAILS = {"short": [5], "normal": [6], "long": [7]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    names = [f"{seed}.jpg" for seed in range(2 * PHOTOS)]
    for name in ("flickr8k", "coco"):
        (folder / name).mkdir()
        for seed, photo in enumerate(names):
            (folder / name / photo).write_bytes(photo_bytes(seed))
    rows = [f"{photo},{CAPTIONS[seed % 3]}\n" for seed, photo in enumerate(names)]
    flickr8k = folder / "flickr8k"
    (flickr8k / "captions.txt").write_text("image,caption\n" + "".join(rows))
    (flickr8k / "captions.de.csv").write_text("image,caption\n0.jpg,ein Hund\n1.jpg,ein Ball\n")
    (flickr8k / "Flickr_8k.devImages.txt").write_text("\n".join(names[:PHOTOS]))
    (flickr8k / "Flickr_8k.trainImages.txt").write_text("\n".join(names[PHOTOS:]))
    content = {
        "images": [{"id": seed, "file_name": photo} for seed, photo in enumerate(names)],
        "annotations": [
            {"id": seed, "image_id": seed, "caption": CAPTIONS[seed % 3]}
            for seed in range(len(names))
        ],
    }
    (folder / "coco" / "captions.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(
        "".join(
            f"<!-- results {n}: begin -->\n<!-- results {n}: end -->\n" for n in ("en", "detail")
        )
    )
    return path


def table(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:]]


def test_lengths_by_language(data: Path, page: Path, tmp_path: Path) -> None:
    changes = {"detail_tokens": DETAILS}
    bundle = toy_bundle(tmp_path / "toy", changes=changes)
    done = script("detail.py", bundle.folder, "--data", data, "--out", page, "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout in page.read_text()
    rows = table(done.stdout)
    expected = ["people", "`short`", "`normal`", "`long`"]
    assert [row[:2] for row in rows] == [[lang, by] for lang in ("en", "de") for by in expected]
    assert rows[0][2:4] == ["4.7", "4 to 5"]
    captioner = capsmith.load(bundle.folder, threads=1)
    photos = [data / "flickr8k" / f"{seed}.jpg" for seed in range(PHOTOS)]
    found = [
        captioner.caption_many(photos, limits=Limits(detail=detail), language="en")
        for detail in ("short", "long")
    ]
    for row, captions in zip((rows[1], rows[3]), found, strict=True):
        words = [len(caption.text.split()) for caption in captions]
        assert row[2] == f"{sum(words) / PHOTOS:.1f}"


def test_a_bundle_without_lengths_is_one_line(data: Path, page: Path, tmp_path: Path) -> None:
    before = page.read_text()
    done = script(
        "detail.py",
        toy_bundle(tmp_path / "toy").folder,
        "--data",
        data,
        "--out",
        page,
        "--threads",
        "1",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "was trained without lengths" in done.stderr
    assert page.read_text() == before


def test_every_metric_on_seen_and_unseen_photos(data: Path, page: Path, tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "toy").folder
    done = script(
        *("every_metric.py", bundle, "--data", data, "--out", page),
        *("--metrics", "default", "--threads", "1"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in page.read_text()
    heads = done.stdout.splitlines()[0].split(" | ")
    assert heads[1:] == ["Flickr8k val (6)", "Flickr8k train (own) (6)", "COCO (12) |"]
    rows = {name: cells for name, *cells in table(done.stdout)}
    captioner = capsmith.load(bundle, threads=1)
    for column, seeds in enumerate((range(PHOTOS), range(PHOTOS, 2 * PHOTOS), range(2 * PHOTOS))):
        photos = [data / "coco" / f"{seed}.jpg" for seed in seeds]
        texts = [caption.text for caption in captioner.caption_many(photos)]
        expected = report(texts, [[CAPTIONS[seed % 3]] for seed in seeds])
        assert rows["BLEU-1"][column] == str(expected.bleu[0])
        assert rows["words a caption"][column] == f"{expected.mean_words:.2f}"
