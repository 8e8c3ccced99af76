"""`capsmith text-tower`: a toy captioner learns the words for colours, in two languages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

import yaml

import capsmith
from capsmith.bundle import read_bundle
from tests.bundles import bundle_with_text_tower, toy_bundle
from tests.integration.command import capsmith as run

COLOURS = {
    "red": ("红", (200, 40, 40)),
    "green": ("绿", (40, 180, 40)),
    "blue": ("蓝", (40, 40, 200)),
    "white": ("白", (225, 225, 225)),
}
RECIPE: dict[str, Any] = {
    "name": "colours",
    "data": {
        "sources": [
            {"path": "captions.csv", "splits": {"train": "train.txt", "val": "val.txt"}},
            {"path": "chinese.csv", "splits": {"train": "train.txt", "val": "val.txt"},
             "language": "zh"},
        ]
    },
    "tokenizer": {"vocab_size": 320, "max_tokens": 8},
    "tower": {"width": 16, "heads": 2, "inner": 2, "dropout": 0.0},
    "training": {"steps": 150, "batch": 8, "rank": 8, "learning_rate": 1e-2, "warmup": 5,
                 "average": 0.9},
}  # fmt: skip


def write_colours(folder: Path) -> Path:
    """24 photos of one colour each in varying shades, and a recipe."""
    draw = np.random.default_rng(0)
    english, chinese, names = [], [], []
    for number in range(24):
        word, (sign, colour) = list(COLOURS.items())[number % 4]
        shade = np.clip(np.array(colour) + draw.integers(-25, 26, 3), 0, 255)
        name = f"{number:02}.png"
        Image.new("RGB", (40, 40), tuple(shade.tolist())).save(folder / name)
        english.append(f"{name},a {word} wall\n{name},this wall is {word}\n")
        chinese.append(f"{name},一面{sign}墙\n")
        names.append(name)
    (folder / "captions.csv").write_text("image,caption\n" + "".join(english), encoding="utf-8")
    (folder / "chinese.csv").write_text("image,caption\n" + "".join(chinese), encoding="utf-8")
    (folder / "train.txt").write_text("\n".join(names[:16]))
    (folder / "val.txt").write_text("\n".join(names[16:]))
    return write_recipe(folder)


def write_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "tower.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colours(folder)
    toy_bundle(folder / "toy")
    return folder


@pytest.fixture(scope="module")
def made(data: Path) -> Path:
    done = run(
        "text-tower", data / "toy", data / "tower.yaml", "--output", data / "made",
        "--store", data / "store", "--threads", "1", cwd=data,
    )  # fmt: skip
    assert done.status == 0, done.complaints
    assert any(line.startswith("validation: en R@1") for line in done.lines), done.lines
    assert "zh R@1" in str(done.lines)
    return data / "made"


def test_words_find_their_pictures(made: Path) -> None:
    captioner = capsmith.load(made, threads=1)
    for word, (sign, colour) in COLOURS.items():
        photo = np.full((40, 40, 3), colour, np.uint8)
        found = captioner.match(photo, [f"a {other} wall" for other in COLOURS])
        assert found[0].text == f"a {word} wall"
        assert found[0].probability > 0.5
        assert sum(match.probability for match in found) == pytest.approx(1)
        signs = captioner.match(photo, [f"一面{other}墙" for other, _ in COLOURS.values()])
        assert signs[0].text == f"一面{sign}墙"


def test_the_captioner_stays_as_it_is(data: Path, made: Path) -> None:
    before, after = read_bundle(data / "toy"), read_bundle(made, verify="always")
    assert {name: after.files[name] for name in before.files} == before.files
    assert set(after.files) - set(before.files) == {"text.onnx", "text_tokenizer.json"}
    assert after.text_tower is not None
    assert after.text_tower.languages == ("en", "zh")
    assert after.text_tower.max_tokens == 8
    assert "16 photos" in after.provenance["text tower"]
    photo = np.full((40, 40, 3), 90, np.uint8)
    captions = [capsmith.load(path, threads=1).caption(photo) for path in (data / "toy", made)]
    assert captions[0] == captions[1]


def test_the_same_recipe_makes_the_same_tower_from_the_store(data: Path, made: Path) -> None:
    shards = {path: path.stat().st_mtime_ns for path in (data / "store").glob("*.safetensors")}
    done = run(
        "text-tower", made, data / "tower.yaml", "--output", data / "again",
        "--store", data / "store", "--threads", "1", cwd=data,
    )  # fmt: skip
    assert done.status == 0, done.complaints
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    first, second = read_bundle(made), read_bundle(data / "again")
    assert first.files == second.files
    assert first.text_tower == second.text_tower


@pytest.mark.parametrize(
    ("change", "status", "wrong"),
    [
        ({"training": {"batch": 1}}, 2, "training.batch is 1"),
        ({"training": {"word_dropout": 1.0}}, 2, "training.word_dropout is 1.0"),
        ({"tower": {"width": 16, "heads": 3}}, 2, "multiple of its 3 heads"),
        ({"tokenizer": {"vocab_size": 10}}, 2, "tokenizer.vocab_size is 10"),
        ({"tokens": {}}, 2, "unknown field"),
        ({"training": {"steps": 50, "learning_rate": 1e30}}, 1, "not a number"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_leaves_nothing(
    data: Path, made: Path, change: dict[str, Any], status: int, wrong: str, tmp_path: Path
) -> None:
    recipe = write_recipe(data, **change)
    done = run(
        "text-tower", data / "toy", recipe, "-o", tmp_path / "made", "--store", data / "store",
        cwd=data,
    )  # fmt: skip
    write_recipe(data)
    assert done.status == status
    assert wrong in done.complaints[-1]
    assert not any("Traceback" in line for line in done.complaints)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_there_is_not_touched(data: Path, tmp_path: Path) -> None:
    bundle_with_text_tower(tmp_path / "there")
    before = json.loads((tmp_path / "there" / "captioner.json").read_text())
    done = run("text-tower", data / "toy", data / "tower.yaml", "-o", tmp_path / "there", cwd=data)
    assert done.status == 3
    assert "exists" in done.complaints[-1]
    assert json.loads((tmp_path / "there" / "captioner.json").read_text()) == before
