"""scripts/retrieval.py on a handful of photos and a toy with a text tower."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import capsmith
from capsmith import Beam
from tests.bundles import bundle_with_text_tower, toy_bundle
from tests.datasets import photo_bytes
from tests.integration.command import script

PHOTOS = 12
CAPTIONS = ("a dog runs on grass", "two red ball near water", "a small cat sits")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("flickr8k", "coco"):
        (folder / name).mkdir()
        for seed in range(PHOTOS):
            (folder / name / f"{seed}.jpg").write_bytes(photo_bytes(seed))
    rows = [f"{seed}.jpg,{CAPTIONS[seed % 3]}\n" for seed in range(PHOTOS)]
    (folder / "flickr8k" / "captions.txt").write_text("image,caption\n" + "".join(rows))
    german = [row.replace("a ", "ein ") for row in rows[:6]]
    (folder / "flickr8k" / "captions.de.csv").write_text("image,caption\n" + "".join(german))
    val = "".join(f"{seed}.jpg\n" for seed in range(PHOTOS))
    (folder / "flickr8k" / "Flickr_8k.devImages.txt").write_text(val)
    images = [{"id": seed, "file_name": f"{seed}.jpg"} for seed in range(PHOTOS)]
    annotations = [
        {"id": seed, "image_id": seed, "caption": CAPTIONS[seed % 3]} for seed in range(PHOTOS)
    ]
    content = {"images": images, "annotations": annotations}
    (folder / "coco" / "captions.json").write_text(json.dumps(content))
    return folder


def measure(bundle: Path, data: Path, page: Path) -> subprocess.CompletedProcess[str]:
    store = data / "store"
    return script(
        *("retrieval.py", bundle, "--data", data),
        *("--out", page, "--store", store, "--threads", "1"),
    )


def test_the_page_says_what_the_tower_finds(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    bundle = bundle_with_text_tower(tmp_path / "toy").folder
    done = measure(bundle, data, tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text()
    assert page == done.stdout
    assert "| en | 12 | 12 |" in page
    assert "| de | 6 | 6 |" in page
    assert "(16.7)" in page  # one of six photos, by chance
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| COCO")]
    assert [row[1].strip() for row in rows] == ["score of the beam", "consensus", "match"]
    captioner = capsmith.load(bundle, threads=1)
    photos = [data / "coco" / f"{seed}.jpg" for seed in range(PHOTOS)]
    plain, ranked = (
        captioner.caption_many(photos, Beam(size=5, candidates=5, rerank=order))
        for order in ("none", "match")
    )
    other = sum(a.text != b.text for a, b in zip(plain, ranked, strict=True))
    assert other
    assert rows[2][4].strip() == f"{other / PHOTOS:.0%}"


def test_a_bundle_without_a_tower_is_one_line(data: Path, tmp_path: Path) -> None:
    done = measure(toy_bundle(tmp_path / "toy").folder, data, tmp_path / "page.md")
    assert done.returncode == 1
    assert "has no text tower" in done.stderr
    assert not (tmp_path / "page.md").exists()
