"""SPICE's answers are read as they are meant, and nothing of a run stays behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from capsmith.errors import CapsmithError, ConfigError
from capsmith.evaluate import jars
from capsmith.evaluate.spice import CATEGORIES, spice
from tests import java_files

REFERENCES = ["two brown dogs run on the grass", "the dogs are running"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with empty files for SPICE and a place for temporary files."""
    java_files.pretend_files(tmp_path / "jars", jars.SPICE, monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def answer(folder: Path, photos: int) -> str:
    """A script that answers for so many photos, and writes its class path and question beside."""
    scores = {name: {"f": None} for name in CATEGORIES} | {"All": {"f": 0.5}}
    plain = [{"image_id": photo, "scores": scores} for photo in range(photos)]
    (folder / "answer.json").write_text(json.dumps(plain))
    copies = f'cp "$7" {folder}/asked.json; cp {folder}/answer.json "$9"'
    return f'echo "$5" > {folder}/class_path; {copies}'


def test_answers_and_the_question(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.pretend_java(folder, answer(folder, 2), monkeypatch)
    scored = spice(["Two Dogs.", 'a "cat" \N{DOG FACE}'], [REFERENCES, ["A cat!"]])
    assert scored.value == 0.5
    assert scored.per_photo.tolist() == [0.5, 0.5]
    assert np.isnan(scored.categories["Color"]).all()
    asked = json.loads((folder / "asked.json").read_text())
    assert [row["test"] for row in asked] == ["two dogs", "a cat"]
    assert asked[1]["refs"] == ["a cat"]
    class_path = (folder / "class_path").read_text()
    assert class_path.index("spice-1.0.jar") < class_path.index("models.jar")
    assert "nashorn" in class_path
    assert not list((folder / "temporary").iterdir())


def test_java_8_has_the_script_engine_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.pretend_java(folder, answer(folder, 1), monkeypatch, version="1.8.0_392")
    spice(["a dog"], [REFERENCES])
    class_path = (folder / "class_path").read_text()
    assert "nashorn" not in class_path
    assert "asm-" not in class_path


@pytest.mark.parametrize("photos", [0, 1, 3])
def test_never_fewer_photos_than_asked(
    photos: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_files.pretend_java(folder, answer(folder, photos), monkeypatch)
    with pytest.raises(CapsmithError, match=f"SPICE: scored {photos} of 2 photos"):
        spice(["a", "b"], [REFERENCES, REFERENCES])


@pytest.mark.parametrize("script", ["exec sleep 60", "echo NullPointerException >&2; exit 1"])
def test_a_failure_leaves_nothing(
    script: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_files.pretend_java(folder, script, monkeypatch)
    with pytest.raises(CapsmithError, match=r"not done within|NullPointerException"):
        spice(["a"], [REFERENCES], timeout_s=0.5)
    assert not list((folder / "temporary").iterdir())


def test_missing_files_are_named_with_origin_size_and_licence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_files.pretend_java(folder, "", monkeypatch)
    for name in ("spice-1.0.jar", "lib/stanford-corenlp-3.6.0-models.jar"):
        (folder / "jars" / "spice" / name).unlink()
    with pytest.raises(ConfigError) as caught:
        spice(["a"], [REFERENCES])
    assert str(caught.value) == (
        "SPICE needs files that are not here: spice-1.0.jar (19.8 MB, from the wheel of"
        " pycocoevalcap 1.2 on PyPI, 104 MB; SPICE AGPL v3, METEOR LGPL, CoreNLP GPL v2 or later);"
        " stanford-corenlp-3.6.0-models.jar (378.0 MB, from CoreNLP 3.6.0 on Maven Central; GPL v3"
        " or later); run: capsmith eval --setup-spice (or capsmith eval --setup-spice FOLDER, where"
        " you have them)"
    )


@pytest.mark.slow
def test_odd_captions_of_the_real_program(monkeypatch: pytest.MonkeyPatch) -> None:
    java_files.require(jars.SPICE, monkeypatch)
    candidates = ["two brown dogs run", "", 'é "x" \\ | \ud800\n two dogs', "is of the", "...", "a"]
    scored = spice(candidates, [REFERENCES] * 5 + [["", "  "]])
    assert scored.per_photo[0] > 0.5
    assert scored.categories["Color"][0] == 1
    assert scored.per_photo[1] == scored.per_photo[4] == scored.per_photo[5] == 0
    assert 0 < scored.per_photo[2] < 1
    assert scored.value == pytest.approx(scored.per_photo.mean())
    assert np.isnan(scored.categories["Size"]).all()
