"""Every recipe is read and dry-run, with the published numbers of parameters and no network."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from capsmith.training.config import Recipe, parse_recipe, read_recipe
from capsmith.training.dry_run import dry_run
from capsmith.training.tower_recipe import read_tower_recipe
from tests import encoder_libraries
from tests.integration.command import ROOT

MLP, LARGE_MLP, SMALL_MLP = 31_468_800, 479_769_600, 8_361_600
TRANSFORMER = 57_520_128  # K = P = 40 over the 640 numbers of RN50x4
LANGUAGE_MODELS = {
    "gpt2": 124_439_808,
    "uer/gpt2-chinese-cluecorpussmall": 102_068_736,
    "data/SmolLM2-135M-Instruct.Q4_1.gguf": 134_515_008 + 2_442_240,  # with its low-rank parts
}

MAPPERS = {
    "capdec": TRANSFORMER,
    "clipcap-chinese": None,
    "clipcap-coco": MLP,
    "clipcap-coco-transformer": TRANSFORMER,
    "clipcap-conceptual": MLP,
    "clipcap-flickr30k-mlp40": LARGE_MLP,
    "clipcap-flickr30k-mlp5": SMALL_MLP,
    "clipxgpt": 44_889_600,
    "embedded": None,
    "flickr8k-gru": None,
    "flickr8k-lstm": None,
    "flickr8k-quick": None,
    "flickr8k-smollm2": 3_610_752,
    "flickr8k-text-only": None,
    "flickr8k-transformer": None,
    "inception-lstm": 2048 * 256 + 256,
}
TOWER = ROOT / "recipes" / "embedded" / "text-tower.yaml"
RECIPES = sorted(
    {*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "recipes").glob("*/*.yaml")} - {TOWER}
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_these_are_the_recipes() -> None:
    assert len(RECIPES) == len(MAPPERS) == 16
    assert {path.stem for path in RECIPES} == set(MAPPERS)


def test_the_recipe_of_the_text_tower_is_read() -> None:
    recipe = read_tower_recipe(TOWER, ["training.steps=7"])
    assert recipe.training.steps == 7
    assert {source.language or "en" for source in recipe.data.sources} == {
        "en", "de", "zh", "fr", "cs",
    }  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_dry_run(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert parse_recipe(recipe.to_dict(), path) == recipe
    if recipe.encoder.family in ("open-clip", "torchvision"):
        encoder_libraries.require()
    lines = list(dry_run(recipe, base=path.parent))
    found = {line.split()[0]: line for line in lines}
    assert set(found) == {
        "recipe", "data", "tokenizer", "encoder", "mapper", "language", "trains", "memory", "steps",
    }  # fmt: skip
    published = MAPPERS[path.stem]
    if published is not None:
        assert parameters(found["mapper"]) == published
    check_language_model(recipe, found)
    assert float(found["memory"].split()[1]) > 0


def check_language_model(recipe: Recipe, found: dict[str, str]) -> None:
    name = recipe.language_model.get("pretrained")
    if name is None:
        return
    published = LANGUAGE_MODELS[name]
    assert parameters(found["language"]) == published
    trains = int(found["trains"].split(":")[1].split()[0].replace(",", ""))
    mapper = parameters(found["mapper"])
    expected = {"mapper": mapper, "mapper+lm": mapper + published}
    if recipe.training.policy in expected:
        assert trains == expected[recipe.training.policy]
    else:
        assert mapper < trains < mapper + published


def parameters(line: str) -> int:
    number = re.search(r"([\d,]+) parameters", line)
    assert number is not None
    return int(number[1].replace(",", ""))
