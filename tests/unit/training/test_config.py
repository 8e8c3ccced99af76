"""Recipes are read strictly: every mistake is one line that names the file and the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import yaml

from capsmith.errors import ConfigError
from capsmith.training.config import Recipe, parse_recipe, read_recipe
from capsmith.types import Beam, TopN
from tests.runs import changed, write_recipe


def read(folder: Path, *changes: str, **sections: Any) -> Recipe:
    return read_recipe(write_recipe(folder, **sections), changes)


def complaint(path: Path, *changes: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_recipe(path, changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"colour": 1}, "unknown field 'colour'"),
        ({"training": {"bach": 3}}, "unknown field training.'bach'"),
        ({"training": {"batch": "many"}}, "'many' as training.batch"),
        ({"training": {"batch": 2.5}}, "2.5 as training.batch"),
        ({"training": {"batch": True}}, "True as training.batch"),
        ({"training": {"policy": "everything"}}, "as training.policy, which must be one of"),
        ({"training": {"betas": [0.9]}}, "as training.betas, which must be a list of 2"),
        ({"training": {"learning_rate": float("inf")}}, "as training.learning_rate"),
        ({"data": {"sources": [{"pth": "x"}]}}, "unknown field data.sources[0].'pth'"),
        ({"encoder": {"family": "magic"}}, "as encoder.family"),
        ({"decoding": {"strategy": {"kind": "guess"}, "limits": {}}}, "as decoding.strategy"),
    ],
)
def test_what_is_not_as_declared_is_named(
    tmp_path: Path, sections: dict[str, Any], field: str
) -> None:
    path = write_recipe(tmp_path, **sections)
    message = complaint(path)
    assert message.startswith(f"{path}: has ")
    assert field in message


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("training", {"batch": 0}, "training.batch is 0; it must be more than 0"),
        ("training", {"learning_rate": -1.0}, "training.learning_rate is -1.0"),
        ("training", {"average": 1.5}, "training.average is 1.5; it must be from 0 to 1"),
        ("training", {"warmup": -1}, "training.warmup is -1; it must be 0 or more"),
        ("training", {"betas": [0.9, 1.0]}, "training.betas are (0.9, 1.0)"),
        ("training", {"seed": -1}, "training.seed is -1"),
        ("training", {"seed": 2**40}, "it must be at most 2147483647"),
        ("training", {"policy": "all"}, "needs features.source: pixels"),
        ("features", {"augment": True}, "features.augment needs features.source: pixels"),
        ("self_critical", {"steps": 5, "captions": 1}, "self_critical.captions is 1"),
        ("self_critical", {"steps": 5, "learning_rate": 0.0}, "self_critical.learning_rate is 0"),
        ("self_critical", {"languages": {"de": 0}}, "self_critical.languages.de is 0"),
        ("tokenizer", {"kind": "words", "least_seen": 0}, "tokenizer.least_seen is 0"),
        ("data", {"sources": []}, "data.sources is empty"),
        ("language_model", {"dropout": "some"}, "language_model.dropout is 'some'"),
        ("mapper", {"kind": ["mlp"]}, "mapper.kind is ['mlp']; it must be one name"),
    ],
)
def test_what_makes_no_sense_is_named(
    tmp_path: Path, section: str, fields: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path, **{section: fields})
    assert message in complaint(path)


def test_texts_have_no_second_stage_and_are_embedded(tmp_path: Path) -> None:
    texts = {"features": {"source": "texts"}}
    path = write_recipe(tmp_path, **texts, self_critical={"steps": 1})
    assert "self_critical reads photos" in complaint(path)
    for encoder in ({}, {"output": "patches"}, {"family": "transformers", "output": "pooled"}):
        path = write_recipe(tmp_path, **texts, encoder=encoder)
        assert "needs encoder.output: embedding" in complaint(path)
    path = write_recipe(tmp_path, features={"offset": True})
    assert "features.offset needs features.source: texts" in complaint(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML"),
        ("", "is no recipe"),
        ("[1, 2]", "is no recipe"),
        ("{a: *unknown}", "is not YAML"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        ("[" * 5000, "is nested too deeply"),
        ("name: x\nname: y\n", "name stands twice in one section"),
        ("#" * 1_000_001, "is larger than 1,000,000 bytes"),
        ("name: x\n", "lacks the field data"),
    ],
)
def test_what_is_no_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    found = complaint(path)
    assert found.startswith(f"{path}: ")
    assert message in found


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.yaml")
    assert "cannot be read" in complaint(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert "is not YAML" in complaint(tmp_path / "latin.yaml")


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.e-5", "+1e-5", "0.00001", "1.0e-5"])
def test_numbers_are_numbers(tmp_path: Path, number: str) -> None:
    assert read(tmp_path, f"training.learning_rate={number}").training.learning_rate == 1e-5


def test_set_changes_fields_sections_and_entries_of_lists(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        "training.batch=3",
        "data.sources.0.path=other.csv",
        "decoding.strategy={kind: beam, size: 4}",
        "self_critical.steps=7",
        "mapper.rows=5",
        "features.store=''",
    )
    assert recipe.training.batch == 3
    assert recipe.data.sources[0].path == "other.csv"
    assert recipe.decoding.strategy == Beam(size=4)
    assert recipe.self_critical.steps == 7
    assert (recipe.mapper["rows"], recipe.features.store) == (5, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.batch", 'must be "section.field=value"'),
        ("data.sources.3.path=x", "the recipe has no data.sources.3.path"),
        ("data.sources.first.path=x", "the recipe has no data.sources.first.path"),
        ("name.first=x", "the recipe has no name.first"),
        ("training.batch=[", "the value is not YAML"),
        ("training.bach=3", "unknown field training.'bach'"),
        ("=3", "unknown field ''"),
    ],
)
def test_wrong_changes_are_named(tmp_path: Path, change: str, message: str) -> None:
    assert message in complaint(write_recipe(tmp_path), change)


def test_recipes_come_back_from_their_dictionary(tmp_path: Path) -> None:
    strategy = {"kind": "top-n", "schedule": [[3, 4], [6, 2]], "exponent": 5.0}
    recipe = read(tmp_path, decoding={"strategy": strategy, "limits": {"max_tokens": 9}})
    assert isinstance(recipe.decoding.strategy, TopN)
    plain = recipe.to_dict()
    assert parse_recipe(plain, tmp_path) == recipe
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(plain)), tmp_path) == recipe
    assert plain["training"]["batch"] == changed()["training"]["batch"]
