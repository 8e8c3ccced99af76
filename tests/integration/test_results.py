"""scripts/results.py: baselines, a run and the embedded captioner on a handful of photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from capsmith.evaluate.report import report
from tests.bundles import toy_bundle
from tests.datasets import photo_bytes
from tests.integration.command import script

COMMON = "a man rides a bicycle"
OF_TRAIN = (
    ("a dog runs on the grass", COMMON),
    ("two women sit near the water", COMMON),
    ("a child plays with a red ball", COMMON),
)
OF_VAL = tuple((f"{first} today", "somebody is there") for first, _ in OF_TRAIN)
PAGE = "# Page\n\n<!-- results en: begin -->\nold\n<!-- results en: end -->\n\nThe end.\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photos to caption that are those to train on, under other names and in another order."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["image,caption"]
    for split, captions in (("train", OF_TRAIN), ("val", OF_VAL)):
        for seed, lines in enumerate(captions):
            (folder / f"{split}{seed}.jpg").write_bytes(photo_bytes(seed))
            rows += [f"{split}{seed}.jpg,{line}" for line in lines]
        names = [f"{split}{seed}.jpg\n" for seed in reversed(range(len(captions)))]
        (folder / f"{split}.txt").write_text("".join(names))
    (folder / "captions.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "results" / "training.md"
    path.parent.mkdir(parents=True)
    path.write_text(PAGE)
    return path


def test_a_run_and_the_baselines_are_scored_into_the_page(
    data: Path, page: Path, tmp_path: Path
) -> None:
    toy_bundle(tmp_path / "run" / "best")
    (tmp_path / "run" / "curves.png").write_bytes(b"a drawing")
    done = script("results.py", tmp_path / "run", "--data", data, "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("# Page\n\n<!-- results en: begin -->\n")
    assert text.endswith("<!-- results en: end -->\n\nThe end.\n")
    assert "old" not in text
    assert done.stdout in text
    cells = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    rows = {row[0]: row[1:] for row in cells}
    assert list(rows) == ["commonest caption", "nearest neighbour", "toy", "embedded"]
    expected = report([first for first, _ in OF_TRAIN], OF_VAL)
    assert rows["nearest neighbour"][0] == str(expected.cider)
    assert rows["nearest neighbour"][-1] == "1.00"
    assert rows["commonest caption"][0] == str(report([COMMON] * 3, OF_VAL).cider)
    assert (tmp_path / "docs" / "images" / "curves-toy.png").read_bytes() == b"a drawing"
    assert "(../images/curves-toy.png)" in text


def test_a_page_without_markers_and_a_missing_split_are_one_line_each(
    data: Path, page: Path
) -> None:
    (data / "val.txt").write_text("")
    page.write_text("no markers")
    done = script("results.py", "--data", data, "--out", page)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    (data / "val.txt").write_text("val0.jpg\n")
    done = script("results.py", "--data", data, "--out", page, "--limit", "1")
    assert done.returncode == 1
    assert "lacks <!-- results en: begin -->" in done.stderr
    assert page.read_text() == "no markers"


def test_another_language_is_scored_by_those_that_speak_it(
    data: Path, page: Path, tmp_path: Path
) -> None:
    toy_bundle(tmp_path / "run" / "best")
    page.write_text(PAGE.replace(" en:", " zh:"))
    done = script("results.py", tmp_path / "run", "--data", data, "--out", page, "--lang", "zh")
    assert done.returncode == 0, done.stderr
    names = [line.strip("| ").split(" | ")[0] for line in done.stdout.splitlines()[2:]]
    assert names == ["commonest caption", "nearest neighbour", "embedded"]
    assert done.stdout in page.read_text()
